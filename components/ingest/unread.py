"""Sets whose own files of labels are not read, and folders that are no classes.

What shows them, and the command that writes a table which is read, or what else to do.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from components.classifier.errors import DataError
from components.readers.listing import Listing, looks_like_picture, some, suffix

_PUBLISHED = {
    "CUB-200": (
        ("images.txt", "train_test_split.txt", "images/"),
        "images",
        """(echo file,split; awk 'NR==FNR {file[$1]=$2; next} {print file[$1] "," ($2 ? "train" : "test")}' """
        "images.txt train_test_split.txt) > images/columns.csv",
    ),
    "the Oxford pets": (
        ("annotations/trainval.txt", "annotations/test.txt", "images/"),
        "labels.csv",
        """(echo file,label,split; awk '{label=$1; sub(/_[0-9]+$/, "", label); print "images/" $1 ".jpg," label "," """
        """(FILENAME ~ /test/ ? "test" : "train")}' annotations/trainval.txt annotations/test.txt) > labels.csv""",
    ),
    "Tiny ImageNet": (
        ("val/val_annotations.txt", "wnids.txt", "val/images/"),
        "labels.csv",
        """(echo file,label,split; find train -name '*.JPEG' | awk -F/ '{print $0 "," $2 ",train"}'; """
        """awk '{print "val/images/" $1 "," $2 ",validation"}' val/val_annotations.txt) > labels.csv""",
    ),
}
"""Per set: the files and folders that show it, what to give as the source then, and the command to be run before, in its folder."""
_BOXES = ((".txt", "labels", "images"), (".xml", "annotations", "images"), (".xml", "Annotations", "JPEGImages"))
"""YOLO's and Pascal VOC's sets for finding objects: the ending of a picture's boxes, their folder, and that of the pictures."""
_COCO = re.compile(r"(^|/)(instances_[^/]*|[^/]*\bcoco)\.json$", re.IGNORECASE)
_KINDS = re.compile(
    r"\.(h5|hdf5|mat|tfrecords?|mdb|lmdb|rec|pkl|pickle|pt|pth|beton|sqlite3?|bin)$|\.tfrecord-|_batch(_\d+)?$", re.IGNORECASE
)
"""Names of files that hold whole sets: HDF5, MATLAB, TFRecord, LMDB, RecordIO, pickles (CIFAR's batches have no ending), FFCV."""
_REMEDY = "and a classifier takes one label per picture; cut the objects out of the pictures, into one folder per class"
_NUMBERED = re.compile(r"""([^0-9/,"]*[^\W\d_])[._ -]*\(?[0-9]+\)?\.\w+""")
"""A name that is a word with a number: cat.0.jpg, Abyssinian_100.jpg."""
_AS_SED = r"""([^0-9,"]*[A-Za-z])[._ -]*\(?[0-9]+\)?\.[A-Za-z]+"""

_DIGITS = re.compile(r"\d+")
_PART_WORDS = frozenset(["part", "parts", "batch", "fold", "chunk", "shard", "subset", "image", "images", "pictures"])
_PICTURES = frozenset(["image", "images", "img", "imgs", "picture", "pictures", "photos", "frames", "input", "inputs", "jpegimages"])
_MASKS = frozenset(
    [
        *("mask", "masks", "label", "labels", "annotation", "annotations", "gt", "groundtruth", "ground_truth", "seg", "segmentation"),
        *("target", "segmentationclass", "segmentationobject"),
    ]
)


def refuse_unread(listing: Listing) -> None:
    """Raise DataError, with what to do, for boxes of objects and for published sets whose labels or splits only their own files tell."""
    names = listing.files.names
    others = [name for name in names if not looks_like_picture(name)]  # nearly always few of very many
    if boxes := next(filter(_COCO.search, others), None) or _boxes(names, others):
        raise DataError(f"{listing.address} holds boxes of objects ({boxes}), {_REMEDY}")
    if len(others) == len(names) and (unread := next(filter(_KINDS.search, names), None)):
        raise DataError(
            f"{listing.address} holds a file of a kind that is not read ({unread}); save its pictures in a folder per class, or as arrays "
            "by np.save, images.npy (N, H, W, C) and labels.npy (N,)"
        )
    for called, ((first, *besides), source, command) in _PUBLISHED.items():
        for root in [name.removesuffix(first) for name in others if name == first or name.endswith(f"/{first}")]:
            if all(any(name.startswith(root + beside) for name in names) for beside in besides):
                raise DataError(
                    f"{listing.address} is {called} as it is published, whose own files are not read: in the folder that holds {first} "
                    f"(unpacked, on this machine) run {command} and give its {source} as the source"
                )


def _boxes(names: Sequence[str], others: Sequence[str]) -> str | None:
    """The first file of boxes that has a picture."""
    for ending, folder, pictures in _BOXES:
        texts = {name.removesuffix(ending): name for name in others if suffix(name) == ending and folder in name.split("/")}
        stems = (name.rpartition(".")[0] for name in names if pictures in name.split("/")) if texts else ()
        inside = re.compile(rf"(^|/){pictures}(/|$)")
        if found := next((texts[name] for stem in stems if (name := inside.sub(rf"\1{folder}\2", stem)) in texts), None):
            return found
    return None


def labels_beside(listing: Listing, folder: str, pictures: Sequence[str]) -> str:
    """What may tell the labels of pictures that lie directly in a folder ("" or ending with "/"), as the end of a message; "" for nothing.

    That is the word that their names begin with, with the command that writes a table of it, or a file of boxes beside the first.
    """
    stem = pictures[0].rpartition(".")[0] if pictures else ""
    if boxes := [name for name in listing.files.names if stem and name in {f"{stem}.txt", f"{stem}.xml"}]:
        return f". {boxes[0]} may hold its label (call it {stem}.cls, as a webdataset has it, in a tar), or boxes of objects, {_REMEDY}"
    words = Counter(found[1] for name in pictures if (found := _NUMBERED.fullmatch(name.rpartition("/")[2])) and looks_like_picture(name))
    if not 1 < len(words) <= words.total() / 2 or words.total() < len(pictures):
        return ""
    command = f"(echo file,label; ls '{folder or '.'}' | sed -nE 's#^{_AS_SED}$#{folder}&,\\1#p') > labels.csv"
    return f". Where the beginnings of their names ({some(words)}) are the classes, run {command} in the source's folder"


def are_pictures_and_masks(names: Iterable[str]) -> bool:
    """Say whether names are those of folders of pictures and of their masks, and nothing else."""
    plain = {name.casefold() for name in names}
    return plain <= _PICTURES | _MASKS and bool(plain & _PICTURES and plain & _MASKS)


def are_numbered_parts(names: Sequence[str]) -> bool:
    """Say whether names are those of parts of one set, which differ in a number only: images_001, HAM10000_images_part_1."""
    stems = {_DIGITS.sub("", name) for name in names}
    return len(names) > 1 and len(stems) == 1 and not _PART_WORDS.isdisjoint(map(str.casefold, re.findall(r"[^\W\d_]+", stems.pop())))
