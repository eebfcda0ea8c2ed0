"""Where the public collections come from: one table of addresses, checksums, licences, citations.

Nothing here was read off the live servers. The facts are second-hand: pinned by public code that
downloads the files, or stated by the papers and by people who use the data; ``second_hand`` says
which. A checksum that the host itself publishes must be met; one that others merely recorded is
compared and a difference is told, because a host may rightly replace its file and a user's copy
may rightly be packed anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Checksum:
    """Hex digest of a file; ``published`` by its host, or else recorded by others."""

    algorithm: str
    hexdigest: str
    published: bool


@dataclass(frozen=True)
class SourceFile:
    """One file of a collection.

    Attributes:
        name: what it is called on disk; a ``.zip`` is unpacked, all else stays beside the folder.
        address: http(s), None where it must be fetched by hand.
        size_bytes: None if unknown.
    """

    name: str
    address: str | None
    size_bytes: int | None = None
    checksums: tuple[Checksum, ...] = ()

    @property
    def suffix(self) -> str:
        """Such as ``.zip``, in lower case."""
        return Path(self.name).suffix.lower()


@dataclass(frozen=True)
class Source:
    """A published collection.

    Attributes:
        folder: its top folder, as the reader expects it.
        holds: what lies in that folder, by which it is found in an archive.
        by_hand: which file to take on the landing page, where fetching it here fails.
        second_hand: the facts above that nobody checked against the live server, and their origin.
    """

    collection: str
    title: str
    folder: str
    holds: tuple[str, ...]
    files: tuple[SourceFile, ...]
    landing_page: str
    licence: str
    citation: str
    by_hand: str
    second_hand: str


_BUSI = Source(
    collection="busi",
    title="BUSI: Dataset of breast ultrasound images",
    folder="Dataset_BUSI_with_GT",
    holds=("benign", "malignant", "normal"),
    files=(
        SourceFile(
            "Dataset_BUSI.zip",
            "https://scholar.cu.edu.eg/Dataset_BUSI.zip",
            checksums=(
                Checksum(
                    "sha256",
                    "b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
                    published=False,
                ),
            ),
        ),
    ),
    landing_page="https://scholar.cu.edu.eg/?q=afahmy/pages/dataset",
    licence="none known to be stated by its authors, and mirrors name different ones (CC0, "
    "CC BY 4.0): ask the authors before you pass it on",
    citation="Al-Dhabyani W, Gomaa M, Khaled H, Fahmy A. Dataset of breast ultrasound images. "
    "Data in Brief 28 (2020) 104863. doi:10.1016/j.dib.2019.104863",
    by_hand="take Dataset_BUSI.zip; no form, no login",
    second_hand="address from public loaders (one notes that the host's TLS is unreliable), "
    "SHA-256 as torch_em recorded it, licences of mirrors",
)

_BUS_BRA = Source(
    collection="bus_bra",
    title="BUS-BRA: A breast ultrasound dataset for assessing computer-aided diagnosis systems",
    folder="BUSBRA",
    holds=("Images", "Masks", "bus_data.csv"),
    files=(
        SourceFile(
            "BUSBRA.zip",
            "https://zenodo.org/records/8231412/files/BUSBRA.zip?download=1",
            size_bytes=133_917_740,
            checksums=(
                Checksum("md5", "1f8b2be6476d58fc97bfb5e5a1ea9bab", published=True),
                Checksum(
                    "sha256",
                    "ba3e6ed19cc37c682d8d39e25435bbf8a555a12cb7e641b5f2117685c95580ff",
                    published=False,
                ),
            ),
        ),
    ),
    landing_page="https://zenodo.org/records/8231412",
    licence="LICENSE.txt in the archive: free to use, change and pass on if the article is cited "
    "and the notice is kept; the Zenodo record is said to state CC BY 4.0",
    citation="Gómez-Flores W, Gregorio-Calas MJ, Coelho de Albuquerque Pereira W. BUS-BRA: A "
    "breast ultrasound dataset for assessing computer-aided diagnosis systems. Medical Physics 51 "
    "(2024) 3110-3123. doi:10.1002/mp.16812. Data: doi:10.5281/zenodo.8231412",
    by_hand="take BUSBRA.zip; no form, no login",
    second_hand="address, size and Zenodo's MD5 as several public loaders pin them, SHA-256 as "
    "torch_em and others recorded it, the record's licence",
)

_BUS_COT = Source(
    collection="bus_cot",
    title="BUS-CoT: A chain-of-thought reasoning breast ultrasound dataset",
    folder="BUSCoT",
    holds=("BUS-Lesion", "BUS-Expert", "DatasetFiles"),
    files=(
        SourceFile(
            "BUSCoT.zip",
            "https://ndownloader.figshare.com/files/60240116",
            size_bytes=6_942_371_401,
            checksums=(Checksum("md5", "832db89dd4095f49a1a4182a72c75be8", published=True),),
        ),
    ),
    landing_page="https://doi.org/10.6084/m9.figshare.30838715",
    licence="CC BY 4.0 (as others report it)",
    citation="Yu H, Li Y, Niu Z, et al. A chain-of-thought reasoning breast ultrasound dataset "
    "covering all histopathology categories. Scientific Data (2026). "
    "doi:10.1038/s41597-026-06702-9. Data: doi:10.6084/m9.figshare.30838715",
    by_hand="take BUSCoT.zip (6.9 GB); no form, no login",
    second_hand="address, size and figshare's MD5 as public loaders pin them, the licence",
)

_BREAST = Source(
    collection="breast",
    title="BrEaST: A curated benchmark dataset for ultrasound based breast lesion analysis",
    folder="BrEaST-Lesions_USG-images_and_masks",
    holds=("case001.png", "case001_tumor.png"),
    files=(
        SourceFile(
            "BrEaST-Lesions_USG-images_and_masks-Dec-15-2023.zip",
            "https://www.cancerimagingarchive.net/wp-content/uploads/"
            "BrEaST-Lesions_USG-images_and_masks-Dec-15-2023.zip",
            checksums=(
                Checksum(
                    "sha256",
                    "c32e49cdfa54042e065582d0cb35978b5fc5e5b5e461b33bf773fb50cfdad355",
                    published=False,
                ),
            ),
        ),
        SourceFile(
            "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx",
            "https://www.cancerimagingarchive.net/wp-content/uploads/"
            "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx",
            checksums=(
                Checksum(
                    "sha256",
                    "89a8874496a6f1f93960390b963f7369b90f7e72ee08a738f2d17e37f5eff8bf",
                    published=False,
                ),
            ),
        ),
    ),
    landing_page="https://www.cancerimagingarchive.net/collection/breast-lesions-usg/",
    licence="CC BY 4.0; downloading means agreeing to TCIA's data usage policy",
    citation="Pawłowska A, Ćwierz-Pieńkowska A, Domalik A, et al. Curated benchmark dataset for "
    "ultrasound based breast lesion analysis. Scientific Data 11 (2024) 148. "
    "doi:10.1038/s41597-024-02984-z. Data: The Cancer Imaging Archive, doi:10.7937/9WKK-Q141",
    by_hand="take both files, 'Images and masks' (zip) and 'Clinical data' (xlsx); the page may "
    "ask you to accept its data usage agreement",
    second_hand="both addresses from public loaders, SHA-256 of both as others recorded them",
)

_BUS_UCLM = Source(
    collection="bus_uclm",
    title="BUS-UCLM: Breast ultrasound lesion segmentation dataset",
    folder="BUS-UCLM",
    holds=("images", "masks", "INFO.csv"),
    files=(
        SourceFile(
            "7fvgj4jsp7-1.zip",
            "https://prod-dcd-datasets-cache-zipfiles.s3.eu-west-1.amazonaws.com/7fvgj4jsp7-1.zip",
        ),
    ),
    landing_page="https://data.mendeley.com/datasets/7fvgj4jsp7",
    licence="stated in two ways: CC BY 4.0 (Mendeley Data, version 3) and CC BY-NC 4.0 (the "
    "authors' code repository); keep to the narrower one, non-commercial, or ask the authors",
    citation="Vallez N, Bueno G, Deniz O, Rienda MA, Pastor C. BUS-UCLM: Breast ultrasound lesion "
    "segmentation dataset. Scientific Data 12 (2025) 242. doi:10.1038/s41597-025-04562-3. "
    "Data: Mendeley Data, version 1, doi:10.17632/7fvgj4jsp7.1",
    by_hand="use 'Download all' in a browser (scripts are turned away there); the address here is "
    "that of version 1, and the page has newer ones (3 is known), which --archive takes as well",
    second_hand="address of version 1 as the first author's repository gives it, both licences; "
    "no size and no checksum is known",
)

SOURCES: dict[str, Source] = {
    source.collection: source for source in (_BUSI, _BUS_BRA, _BUS_COT, _BREAST, _BUS_UCLM)
}
