import re
import zipfile

import numpy as np
import openpyxl
import pytest

from stdiff.birads.lexicon import BIRADS, ECHO_PATTERNS, SHAPES, Findings
from stdiff.datasets.pixels import read_pixels
from stdiff.datasets.readers import read_raw
from stdiff.runtime.files import InputError

IMAGES = "BrEaST-Lesions_USG-images_and_masks"


def one(breast, draw, **changes):
    """The case of a sheet with one row."""
    draw.write_workbook(breast / draw.workbook, [draw.breast_row(1, **changes)])
    return next(case for case in read_raw("breast", breast)[0])


def test_what_a_case_says(breast, draw):
    cases, problems = read_raw("breast", breast)
    assert not problems
    assert [case.case_id for case in cases] == [
        f"breast/case{n}" for n in ("001", "002", "003", "045")
    ]
    first, second, third, normal = cases
    assert first.findings == Findings(
        pathology="malignant",
        birads="4A",
        shape="irregular",
        margin=("indistinct", "angular"),
        echo_pattern="hypoechoic",
        posterior_features="shadowing",
        calcifications="in a mass",
    )
    assert first.histology == "Invasive lobular carcinoma; Lobular carcinoma in situ (LCIS)"
    assert set(first.annotated) == {
        *("pathology", "birads", "shape", "margin", "echo_pattern", "posterior_features"),
        *("calcifications", "histology"),
    }
    assert first.pixel_spacing_mm == pytest.approx(0.075)
    assert (first.patient_id, second.patient_id) == ("1", "2")
    assert first.source_path == "case001.png" and first.flags == ()
    assert third.findings.birads == "3" and third.findings.margin == ("circumscribed",)
    assert (read_pixels(first).mask_HW == draw.disc()).all()
    assert (read_pixels(first).picture.grey_HW == draw.speckle(4001)).all()
    assert normal.findings == Findings(pathology="normal", birads="1")
    assert normal.lesion_free and not read_pixels(normal).mask_HW.any()
    assert normal.histology is None


def test_other_structures_are_no_lesion(breast, draw):
    elsewhere = draw.opaque(draw.disc(x=10, y=50, r=5))
    draw.save(breast / IMAGES / "case002_other1.png", elsewhere)
    case = read_raw("breast", breast)[0][1]
    assert case.flags == ("other_structures",)
    assert [path.name for path in case.mask_paths] == ["case002_tumor.png"]
    assert (read_pixels(case).mask_HW == draw.disc()).all()


def test_transparent_pixels_are_black_and_flagged(breast, draw):
    rgba = draw.opaque(draw.speckle(9))
    rgba[:20, :, 3] = 0
    draw.save(breast / IMAGES / "case001.png", rgba)
    mask = draw.opaque(np.ones((60, 80), bool))
    mask[~draw.disc(), 3] = 0
    draw.save(breast / IMAGES / "case003_tumor.png", mask)
    first, _, third, _ = read_raw("breast", breast)[0]
    pixels = read_pixels(first)
    assert pixels.flags == ("transparent_pixels",)
    assert not pixels.picture.grey_HW[:20].any()
    assert (pixels.picture.grey_HW[20:] == draw.speckle(9)[20:]).all()
    assert read_pixels(third).flags == ()
    assert (read_pixels(third).mask_HW == draw.disc()).all()


@pytest.mark.parametrize(
    "layout", ["own folder", "one folder", "workbook inside", "dated", "images"]
)
def test_every_layout_gives_the_same_cases(breast, draw, layout):
    expected = [(c.case_id, c.source_path, c.findings) for c in read_raw("breast", breast)[0]]
    given = breast
    if layout == "one folder":
        for path in (breast / IMAGES).iterdir():
            path.rename(breast / path.name)
    elif layout == "workbook inside":
        (breast / draw.workbook).rename(breast / IMAGES / draw.workbook)
    elif layout == "dated":
        (breast / IMAGES).rename(breast / "temporary")
        (breast / f"{IMAGES}-Dec-15-2023").mkdir()
        (breast / "temporary").rename(breast / f"{IMAGES}-Dec-15-2023" / IMAGES)
    elif layout == "images":
        given = breast / IMAGES
    cases, problems = read_raw("breast", given)
    assert not problems
    assert [(c.case_id, c.source_path, c.findings) for c in cases] == expected


@pytest.mark.parametrize(
    ("cell", "birads"),
    [(2, "2"), (2.0, "2"), ("4a", "4A"), (" 4B ", "4B"), ("5", "5"), (None, None)],
)
def test_cells_as_people_type_them(breast, draw, cell, birads):
    case = one(
        breast,
        draw,
        CaseID=1.0,
        BIRADS=cell,
        Image_filename="case001",
        Mask_tumor_filename=" case001_tumor ",
        Shape="Oval ",
        Pixel_size="0,0081",
    )
    assert case.case_id == "breast/case001" and case.patient_id == "1"
    assert case.findings.birads == birads and case.findings.shape == "oval"
    assert case.pixel_spacing_mm == pytest.approx(0.081)
    assert case.flags == ()


@pytest.mark.parametrize("cell", ["001", "case001", "Case 1".replace(" ", "")])
def test_spellings_of_the_number(breast, draw, cell):
    assert one(breast, draw, CaseID=cell).case_id == "breast/case001"


@pytest.mark.parametrize(
    ("column", "cell", "name", "term"),
    [
        *(("Shape", term, "shape", term) for term in SHAPES),
        *(("Echogenicity", t, "echo_pattern", t) for t in ECHO_PATTERNS if "complex" not in t),
        ("Echogenicity", "complex cystic/solid", "echo_pattern", "complex cystic and solid"),
        ("Posterior_features", "no", "posterior_features", "no posterior features"),
        ("Posterior_features", "combined", "posterior_features", "combined pattern"),
        ("Posterior_features", "enhancement", "posterior_features", "enhancement"),
        ("Calcifications", "no", "calcifications", "none"),
        ("Calcifications", "intraductal", "calcifications", "intraductal"),
        ("Calcifications", "indefinable", "calcifications", None),
        ("Margin", "not circumscribed - spiculated", "margin", ("spiculated",)),
        (
            "Margin",
            "not circumscribed - microlobulated & angular",
            "margin",
            ("angular", "microlobulated"),
        ),
        ("Margin", "not applicable", "margin", ()),
        *(("BIRADS", c.lower(), "birads", c) for c in BIRADS),
    ],
)
def test_every_term_of_the_sheet(breast, draw, column, cell, name, term):
    case = one(breast, draw, **{column: cell})
    assert getattr(case.findings, name) == term
    assert case.flags == ()
    assert (name in case.annotated) == bool(term)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("Shape", "lobular"),
        ("Margin", "circumscribed&indistinct"),
        ("Margin", "not circumscribed - fuzzy&angular"),
        ("Echogenicity", "dark"),
        ("Posterior_features", "yes"),
        ("Calcifications", "maybe"),
        ("BIRADS", "4d"),
        ("Classification", "unclear"),
        ("Pixel_size", "wide"),
        ("Pixel_size", -0.01),
    ],
)
def test_an_unknown_value_is_a_flag_and_no_guess(breast, draw, column, cell):
    case = one(breast, draw, **{column: cell})
    kind = "unreadable_metadata" if column == "Pixel_size" else "unknown_term"
    assert case.flags == (f"{kind}:{column}={cell}",)
    blank = one(breast, draw, **{column: None})
    assert (case.findings, case.pixel_spacing_mm) == (blank.findings, blank.pixel_spacing_mm)


def test_rows_and_files_that_do_not_meet(breast, draw):
    folder = breast / IMAGES
    (folder / "case001.png").unlink()
    (folder / "case002_other2.png").unlink()
    (folder / "case003_tumor.png").unlink()
    draw.save(folder / "case099.png", draw.speckle(1))
    rows = [
        draw.breast_row(1),
        draw.breast_row(2, Mask_other_filename="case002_other1.png&case002_other2.png"),
        draw.breast_row(3),
        draw.breast_row(4, Image_filename=None),
        draw.breast_row(5, CaseID="five", Image_filename="case045.png", Mask_tumor_filename=None),
    ]
    draw.write_workbook(breast / draw.workbook, rows)
    kept, reasons = draw.usable("breast", breast)
    assert kept == ["breast/case002"]
    expected = {
        "case001.png": "the image is missing",
        "case002_other2.png": "mask of another structure",
        "case003.png": "its mask case003_tumor.png is missing",
        f"{draw.workbook}, CaseID 4": "the image is missing",
        "case045.png": "CaseID 'five'; expected a number",
        "case099.png": f"not named in {draw.workbook}",
    }
    assert set(reasons) == set(expected)
    assert all(part in reasons[path] for path, part in expected.items())


def test_mask_and_class_that_contradict(breast, draw):
    rows = [
        draw.breast_row(1, Mask_tumor_filename="not applicable"),
        draw.breast_row(2, Classification="normal"),
    ]
    draw.write_workbook(breast / draw.workbook, rows)
    kept, reasons = draw.usable("breast", breast)
    assert not kept
    assert "no Mask_tumor_filename" in reasons["case001.png"]
    assert "marks a lesion, but the image is of class normal" in reasons["case002.png"]


def test_names_in_the_sheet_cannot_leave_the_folder(breast, draw, tmp_path):
    draw.save(tmp_path / "raw" / "case007.png", draw.speckle(1))
    draw.write_workbook(
        breast / draw.workbook, [draw.breast_row(7, Image_filename="../../case007.png")]
    )
    cases, problems = read_raw("breast", breast / IMAGES)
    assert not cases and any("the image is missing" in problem.reason for problem in problems)


def test_no_workbook_or_two(breast, draw):
    (breast / "BrEaST-Lesions-USG-clinical-data-2024.xlsx").write_bytes(
        (breast / draw.workbook).read_bytes()
    )
    with pytest.raises(InputError, match="2 files of clinical data: .*2024.xlsx.*keep one"):
        read_raw("breast", breast)
    for path in breast.glob("*.xlsx"):
        path.unlink()
    with pytest.raises(InputError, match="no clinical data; expected one file BrEaST-Lesions-USG"):
        read_raw("breast", breast)


def test_two_folders_of_images(breast, draw):
    draw.save(breast / "copy" / "case001.png", draw.speckle(1))
    with pytest.raises(InputError, match=f"several folders hold case.*{IMAGES}, copy"):
        read_raw("breast", breast)


@pytest.mark.parametrize("content", [b"", b"CaseID;Image_filename\n1;case001.png\n", "half", "zip"])
def test_workbook_that_is_none(breast, draw, content):
    path = breast / draw.workbook
    whole = path.read_bytes()
    path.write_bytes(
        {"half": whole[: len(whole) // 2], "zip": b"PK\x05\x06" + bytes(18)}.get(content, content)
    )
    with pytest.raises(InputError, match=r"Dec-15-2023\.xlsx: not a readable Excel file"):
        read_raw("breast", breast)


def test_missing_columns_are_all_named(breast, draw):
    header = [name for name in draw.breast_header if name not in ("Margin", "Classification")]
    draw.write_workbook(breast / draw.workbook, [draw.breast_row(1)], header)
    with pytest.raises(
        InputError, match=r"column\(s\) Margin, Classification missing; found CaseID"
    ):
        read_raw("breast", breast)


def test_one_number_twice_in_two_spellings(breast, draw):
    rows = [draw.breast_row(1), draw.breast_row(2, CaseID="case001")]
    draw.write_workbook(breast / draw.workbook, rows)
    with pytest.raises(InputError, match=r"column CaseID: must be unique.*1 \(2 times\)"):
        read_raw("breast", breast)


def test_blank_rows_units_in_headers_and_a_wrong_range_hide_nothing(breast, draw):
    header = [name.replace("Pixel_size", "Pixel_size (cm)") for name in draw.breast_header]
    rows = [draw.breast_row(1), {}, draw.breast_row(3), {}]
    for row in rows:
        row["Pixel_size (cm)"] = row.get("Pixel_size")
    draw.write_workbook(breast / draw.workbook, rows, header)
    book = openpyxl.load_workbook(breast / draw.workbook)
    book.move_sheet("legend", -1)
    book.save(breast / draw.workbook)
    parts = {}
    with zipfile.ZipFile(breast / draw.workbook) as archive:
        for name in archive.namelist():
            parts[name] = re.sub(
                rb'<dimension ref="[^"]+"', b'<dimension ref="A1"', archive.read(name)
            )
    with zipfile.ZipFile(breast / draw.workbook, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    cases = read_raw("breast", breast)[0]
    assert [case.case_id for case in cases] == ["breast/case001", "breast/case003"]
    assert cases[0].pixel_spacing_mm == pytest.approx(0.075)


def test_order_of_rows_does_not_matter(breast, draw):
    cases = read_raw("breast", breast)
    rows = [draw.breast_row(n) for n in (3, 1)]
    draw.write_workbook(breast / draw.workbook, rows)
    back = read_raw("breast", breast)
    draw.write_workbook(breast / draw.workbook, rows[::-1])
    forth = read_raw("breast", breast)
    assert back[0] == forth[0] != cases[0]
    assert {p.source_path for p in back[1]} == {p.source_path for p in forth[1]}
