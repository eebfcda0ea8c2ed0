"""One image from a mask and a text: what is refused, when, and what the picture says of itself."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from test_shards import SAMPLER, SIZE, SeededNoise

from stdiff.corpus.one_image import draw, read_request
from stdiff.runtime.files import InputError


@pytest.fixture
def model(tmp_path):
    """As much of a model folder as is read before torch."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "stdiff.json").write_text(json.dumps({"stage": "finetune", "size_px": SIZE}))
    return folder


@pytest.fixture
def mask(tmp_path):
    picture = Image.new("RGB", (80, 60))
    picture.paste((255, 255, 255), (20, 20, 60, 40))
    picture.save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


@pytest.mark.parametrize(
    ("mask_HW", "said"),
    [
        (np.full((100, 80), 255, np.uint8), "covers 100 % of the image"),
        (np.eye(100, dtype=np.uint8) * 255, "is an outline or a line"),
        (np.full((100, 80), 254, np.uint8) + np.eye(100, 80, dtype=np.uint8), "covers 100 %"),
    ],
)
def test_a_mask_that_cannot_be_a_lesion_is_refused(tmp_path, model, mask_HW, said):
    Image.fromarray(mask_HW).save(tmp_path / "m.png")
    with pytest.raises(InputError, match=f"m.png: this mask cannot be a lesion's, as it {said}"):
        read_request(model, tmp_path / "m.png", "", 0)


def test_what_cannot_be_made_is_refused(model, mask, tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "empty.png")
    speck = Image.new("L", (999, 999))
    speck.paste(255, (20, 20, 36, 36))
    speck.save(tmp_path / "speck.png")
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "stdiff.json").write_text('{"stage": "pretrain", "size_px": 32}')
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "stdiff.json").write_text('{"stage": "fine')
    for folder, png, text, seed, said in (
        (model, mask, "purple margin", 0, "did you mean"),
        (model, mask, "", -1, "seed -1: expected >= 0"),
        (model, tmp_path / "none.png", "benign", 0, "cannot be read"),
        (model, tmp_path / "empty.png", "", 0, "no lesion left at 32 x 32"),
        (model, tmp_path / "speck.png", "", 0, "no lesion left at 32 x 32"),
        (tmp_path / "none", mask, "", 0, "not an stdiff model folder"),
        (tmp_path / "stage1", mask, "", 0, "takes neither masks nor captions"),
        (tmp_path / "bad", mask, "", 0, "stdiff.json: not a JSON object"),
    ):
        with pytest.raises(InputError, match=said):
            read_request(folder, png, text, seed)


def test_a_refusal_does_not_wait_for_torch(model, mask):
    code = (
        "import sys; from stdiff.cli.main import main; "
        f"print(main(['generate-one', '--model', {str(model)!r}, '--mask', {str(mask)!r}, "
        "'--text', 'purple', '--threads', '1', '--out', 'x.png'])); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'purple' is not a lexicon term" in done.stderr
    code, modules = done.stdout.splitlines()
    assert code == "1"
    assert not set(modules.split()) & {"torch", "pandas", "diffusers", "transformers", "scipy"}


def test_one_image_says_what_it_is(model, mask, tmp_path):
    out = tmp_path / "x.png"
    request = read_request(model, mask, "oval shape, benign", 7)
    draw(request, SeededNoise(), SAMPLER, out)
    with Image.open(out) as image:
        assert image.size == (SIZE, SIZE)
        assert image.text["caption"] == "benign: oval shape"
        assert image.text["seed"] == "7"
        assert image.text["model_sha256"] == "a" * 64
        assert "not for diagnosis" in image.text["synthetic"]
        pixels = np.asarray(image)
    assert pixels[SIZE // 2, SIZE // 2] > 120 > pixels[0, 0]
