import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont
from real_data import DATA, real_files

from stdiff.overlays.detection import FLAGS, find_marks, is_coloured
from stdiff.overlays.inpaint import MARGIN_PX, without_marks
from stdiff.simulation.frames import _burn_in, bus_bra_frame, busi_frame

# A detector errs now and then: the same examples every time, so that the tests do not.
_detection = settings(derandomize=True, database=None, deadline=None)


def tissue(seed=0, height=200, width=260):
    """Speckle smeared across the beam, mean grey 70."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5, sigmaY=1.2)
    return np.clip(70 + 25 * smooth / smooth.std(), 12, 255).astype(np.uint8)


def with_plus(grey, x, y, arm=5, fill=255, width=1):
    picture = Image.fromarray(grey)
    draw = ImageDraw.Draw(picture)
    draw.line((x - arm, y, x + arm, y), fill=fill, width=width)
    draw.line((x, y - arm, x, y + arm), fill=fill, width=width)
    return np.array(picture)


def with_text(grey, text="RT AXILLA", size=16, fill=230):
    picture = Image.fromarray(grey)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(picture).text((60, 120), text, fill=fill, font=font)
    return np.array(picture)


@given(st.integers(0, 255), st.integers(1, 90), st.integers(1, 90))
def test_a_blank_image_has_no_marks(grey, height, width):
    marks = find_marks(np.full((height, width), grey, np.uint8))
    assert marks.flags == () and not marks.mask_HW.any()
    assert marks.mask_HW.shape == (height, width)


@settings(_detection, max_examples=40)
@given(st.integers(0, 1000), st.floats(0.2, 1.1))
def test_tissue_has_no_marks_at_any_gain(seed, gain):
    frame = np.clip(tissue(seed) * gain, 12, 255).astype(np.uint8)
    assert find_marks(frame).flags == ()


@settings(_detection, max_examples=30)
@given(
    st.integers(0, 1000),
    st.integers(30, 229),
    st.integers(15, 184),
    st.integers(4, 9),
    st.sampled_from([1, 3]),
)
def test_a_plus_is_found_where_it_was_drawn(seed, x, y, arm, width):
    grey = tissue(seed)
    drawn = with_plus(grey, x, y, arm, width=width)
    marks = find_marks(drawn)
    assert marks.flags == ("callipers",)
    changed = drawn != grey
    assert marks.mask_HW[changed].mean() > 0.9
    ys, xs = np.nonzero(marks.mask_HW)
    # Strokes within 20 px of a calliper are taken for its number.
    assert abs(ys - y).max() <= 30 and abs(xs - x).max() <= 30
    assert find_marks(grey).flags == ()


ASTERISK = """
#....#....#
.#...#...#.
.##.###.##.
..#.###.#..
...#####...
....###....
...#####...
..#.###.#..
.##.###.##.
.#...#...#.
#....#....#"""


@pytest.mark.parametrize("turned", [False, True])
def test_a_scanner_s_asterisk_is_a_calliper(turned):
    shape = np.array([[mark == "#" for mark in row] for row in ASTERISK.split()])
    drawn = tissue(3)
    drawn[80:91, 100:111][shape.T if turned else shape] = 200
    assert find_marks(drawn).flags == ("callipers",)


@settings(_detection, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["RT AXILLA", "MAMA DIREITA", "LEFT BREAST 12H"]))
def test_text_is_found_where_it_was_drawn(seed, text):
    grey = tissue(seed)
    drawn = with_text(grey, text)
    marks = find_marks(drawn)
    assert marks.flags == ("burnt_in_text",)
    strong = drawn.astype(int) - grey > 100
    assert marks.mask_HW[strong].mean() > 0.6
    ys, xs = np.nonzero(strong)
    outside = marks.mask_HW.copy()
    outside[ys.min() - 5 : ys.max() + 6, max(0, xs.min() - 20) : xs.max() + 21] = False
    # A speck of tissue on the same line may be taken for one more letter.
    assert outside.sum() <= 0.1 * marks.mask_HW.sum()


def test_a_glyph_cut_off_at_the_corner_is_text():
    """BUSI: the last letter of the scanner's name, white on black."""
    drawn = tissue(1)
    drawn[:14, :9] = 0
    drawn[2:11, 3:5] = 235
    assert find_marks(drawn).flags == ("burnt_in_text",)


def test_the_number_beside_a_calliper_is_no_text():
    drawn = with_plus(tissue(2), 90, 70, arm=7, width=3, fill=232)
    drawn = with_plus(drawn, 150, 70, arm=7, width=3, fill=232)
    drawn[72:82, 100:102] = 232
    marks = find_marks(drawn)
    assert marks.flags == ("callipers",)
    assert marks.mask_HW[73:81, 100:102].all()


def test_bright_specks_are_no_marks():
    """Calcifications are blurred as all echoes are, however closely they stand."""
    for seed in range(150):
        rng = np.random.default_rng(seed)
        count = 1 + seed % 25
        specks = np.zeros((200, 260), np.float32)
        specks[rng.integers(80, 120, count), rng.integers(100, 160, count)] = 1
        specks = cv2.GaussianBlur(specks, (0, 0), 1.8, sigmaY=1.1)
        frame = np.clip(tissue(seed) + 180 * specks / specks.max(), 0, 255).astype(np.uint8)
        assert find_marks(frame).flags == (), seed


def test_a_measuring_line_is_marked_and_tissue_beside_it_not():
    drawn = with_plus(with_plus(tissue(5), 80, 60, arm=6), 160, 100, arm=6)
    on_line = [(80 + t, 60 + t // 2) for t in range(8, 74, 6)]
    for x, y in on_line:
        drawn[y : y + 2, x : x + 2] = 230
    mask = find_marks(drawn).mask_HW
    assert np.mean([mask[y, x] for x, y in on_line]) > 0.8
    ys, xs = np.nonzero(mask[:, 105:135])  # away from the callipers and their numbers
    assert (abs(ys - 60 - (xs + 105 - 80) / 2) <= 3).all()


@pytest.mark.parametrize("side", range(4))
def test_a_black_bar_is_a_border(side):
    widths = [(0, 0), (0, 0)]
    widths[side % 2] = (12, 0) if side < 2 else (0, 12)
    assert find_marks(np.pad(tissue(6), widths)).flags == ("black_border",)


def test_depth_is_no_border():
    faded = tissue(7) * np.linspace(1, 0, 200)[:, None] ** 2
    assert find_marks(faded.astype(np.uint8)).flags == ()


def test_ticks_at_equal_distances_are_a_ruler():
    drawn = tissue(8)
    for y in range(20, 190, 24):
        drawn[y : y + 2, 246:252] = 230
    assert "ruler" in find_marks(drawn).flags
    uneven = tissue(8)
    for y in (20, 31, 58, 99, 112, 150, 187):
        uneven[y : y + 2, 246:252] = 230
    assert "ruler" not in find_marks(uneven).flags


@pytest.mark.parametrize(("spread", "coloured"), [(1, False), (2, False), (3, True), (90, True)])
def test_colour_is_more_than_jpeg_does(spread, coloured):
    rgb = np.repeat(tissue(9)[..., None], 3, axis=2)
    rgb[50:60, 50:60, 0] = rgb[50:60, 50:60, 1] - min(spread, 10)
    if spread > 10:
        rgb[50:60, 50:60] = (90 + spread, 90, 90)
    assert is_coloured(rgb) is coloured
    assert ("colour" in find_marks(rgb[..., 1], rgb).flags) is coloured


def test_a_yellow_calliper_is_one():
    rgb = np.repeat(tissue(10)[..., None], 3, axis=2)
    for channel, grey in ((0, 250), (1, 220), (2, 20)):
        rgb[..., channel] = with_plus(rgb[..., channel].copy(), 90, 80, arm=6, fill=grey)
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    assert find_marks(grey, rgb).flags == ("callipers", "colour")


def test_the_same_picture_has_the_same_marks():
    drawn = with_text(with_plus(tissue(11), 90, 40))
    first, again = find_marks(drawn), find_marks(drawn.copy(order="F"))
    assert first.flags == again.flags == ("burnt_in_text", "callipers")
    assert (first.mask_HW == again.mask_HW).all()
    assert set(first.flags) <= set(FLAGS)


def test_floor_on_simulated_frames():
    """At 256 px at least nine of ten flags are right, and nine of ten marks are found."""
    frames = [busi_frame(2, "benign", n, 256) for n in range(1, 25)]
    frames += [bus_bra_frame(2, n, "s", 256) for n in range(1, 17)]
    wanted = [{{"text": "burnt_in_text"}.get(m, m) for m in frame.marks} for frame in frames]
    found = []
    for frame in frames:
        rgb = np.asarray(frame.picture) if frame.picture.mode == "RGB" else None
        found.append(set(find_marks(np.asarray(frame.picture.convert("L")), rgb).flags))
    for flag in ("burnt_in_text", "callipers", "colour"):
        hits = sum(flag in w and flag in f for w, f in zip(wanted, found, strict=True))
        assert hits >= 0.9 * sum(flag in w for w in wanted), flag
        assert hits >= 0.9 * sum(flag in f for f in found), flag
    assert not any({"black_border", "ruler"} & f for f in found)


# ---- inpainting


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(0, 59), st.integers(0, 79))))
def test_pixels_away_from_marks_stay(seed, points):
    grey = tissue(seed, 60, 80)
    marks = np.zeros(grey.shape, bool)
    for y, x in points:
        marks[y, x] = True
    before, marks_before = grey.copy(), marks.copy()
    painted = without_marks(grey, marks)
    side = 2 * MARGIN_PX + 1
    near = cv2.dilate(marks.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    assert (painted[~near] == grey[~near]).all() and painted.dtype == np.uint8
    assert (grey == before).all() and (marks == marks_before).all()


@pytest.mark.parametrize("patient", [1, 2, 4, 5])
def test_painting_over_is_nearer_to_the_truth_than_the_marks(patient):
    phantom = bus_bra_frame(3, patient, "l", 256).phantom
    picture, _ = _burn_in(phantom, callipers=True, text="MAMA DIREITA")
    drawn, clean = np.asarray(picture), phantom.image_HW
    painted = without_marks(drawn, find_marks(drawn).mask_HW)
    burnt = drawn != clean
    error, left_alone = (
        np.abs(image[burnt].astype(int) - clean[burnt]).mean() for image in (painted, drawn)
    )
    assert error < left_alone / 3
    assert find_marks(painted).flags == ()


# ---- real files


@real_files
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("benign/benign (213)", {"burnt_in_text", "callipers"}),
        ("benign/benign (220)", {"callipers"}),
        ("benign/benign (228)", {"burnt_in_text"}),
        ("benign/benign (186)", set()),
        ("malignant/malignant (101)", set()),
        ("normal/normal (61)", set()),
    ],
)
def test_real_frames_seen_by_eye(name, flags):
    path = (DATA / "Dataset_BUSI_with_GT") / f"{name}.png"
    if not path.is_file():
        pytest.skip("this image is not here")
    assert set(find_marks(np.asarray(Image.open(path).convert("L"))).flags) == flags
