"""Which class and which split a file belongs to, read from its path.

1. Wrapper folders (one folder alone, without pictures beside it, that holds folders) are unwrapped.
2. Where all folders are named train, test, val … they are splits; else they are classes. Names that are only like those
   (training_set, seg_test, val2017) are splits where the same class folders lie in them, and are refused where not.
3. A picture belongs to the class at the top, however deep it lies. Where several folders of the same names lie in more than one
   class, and no picture beside them, nothing tells which of the two are the classes: refused.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError
from components.ingest.unread import are_numbered_parts, are_pictures_and_masks, labels_beside, refuse_unread
from components.readers import parquet
from components.readers.listing import Listing, SourceFile, is_archive, looks_like_picture, some, suffix
from components.readers.places import InputSource
from components.readers.records import Encoded, Unreadable
from components.readers.table import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_NAMES, is_table

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
_WORD_END = re.compile(r"(?<=.)(set|data|images?|imgs?)$")
_PLAIN_WORDS = frozenset([*SPLIT_NAMES, "set", "data", "image", "images", "img", "imgs", "pictures", "photos"])
"""Words of which no class's name is made where one of them is a split's."""
_LABEL_FILE = re.compile(r"(^|/)(?!readme|licen[cs]e|change)[^/]*\.(txt|json|xlsx?|ods|xml|yaml|mat|lst|parquet)$", re.IGNORECASE)
WANTED = "wanted is one folder per class with its pictures in it (cat/1.png, dog/1.png), or train/ and test/ with such folders in them"
COLUMNS_WANTED = f"a column for the picture ({', '.join(PATH_COLUMNS)}) and one for the label ({', '.join(LABEL_COLUMNS)})"
TABLES_WANTED = (
    f"a table of labels has {COLUMNS_WANTED}, and is given as the source, or called labels.csv; that of a split is called "
    "train_labels.csv, or lies in the split's folder"
)


@dataclass(frozen=True)
class Place:
    """Where one picture belongs: its class, and the split that its folder gives (None: to be split)."""

    class_name: str
    split: SplitName | None


place_of = lru_cache(maxsize=None)(Place)
"""A place that all pictures of a class and split share."""


@dataclass
class Layout:
    """What the paths of a listing say."""

    root: str
    """The unwrapped folder, "" or ending with "/"."""
    places: dict[str, Place] = field(default_factory=dict)
    """Per picture's name; what has no label is not in it."""
    class_names: set[str] = field(default_factory=set)
    """All classes, empty folders included."""
    attributes: dict[str, dict[str, str | None]] = field(default_factory=dict)
    """Per picture's name: further columns with their values."""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Tree:
    """What lies directly below each folder ("" or ending with "/")."""

    folders: dict[str, list[str]]
    pictures: dict[str, list[str]]
    """Files that are pictures by their names."""
    filled: set[str]
    """Folders with a file below that may be a picture."""

    def below(self, folder: str) -> bool:
        """Say whether a picture, or a file without a suffix that may be one, lies anywhere below a folder."""
        return folder in self.filled


@dataclass
class Labelled:
    """The pictures of a source in their order, and what is said of each."""

    layout: Layout
    records: Iterable[Encoded | Unreadable]
    count: int
    all_pictures: bool = False
    """Whether each record is a picture whatever its name says; else files that are none are passed over."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(name, reason) of pictures that cannot be used."""
    read_too: set[str] = field(default_factory=set)
    """Names of the files that gave labels or attributes."""
    attributes_of: tuple[str, set[str]] = ("", set())
    """columns.csv, and the pictures that it names."""


def class_folders(source: InputSource, listing: Listing, layout: Layout) -> Labelled:
    """The pictures of class folders, in the order of their names."""
    count = sum(name in layout.places for name in listing.files.names)
    outside = [name for name in listing.files.names if name not in layout.places and looks_like_picture(name)]
    return Labelled(layout, placed(source, listing, layout), count, faults=[(name, "lies outside the class folders") for name in outside])


def placed(source: InputSource, listing: Listing, layout: Layout) -> Iterator[Encoded]:
    """The files of a listing that have a place, in their order."""
    return (record_of(source, file) for file in listing.files if file.name in layout.places)


def record_of(source: InputSource, file: SourceFile) -> Encoded:
    """How a file of a source is read, when it is its turn."""
    return Encoded(file.name, 0, source.loader(file), file.size)


def arrange(listing: Listing) -> Layout:
    """Find the classes and splits of a listing.

    Raises DataError when its folders are not classes, saying what is wanted and what was found.
    """
    refuse_unread(listing)
    tree = _tree(listing)
    layout = Layout(_unwrap(tree))
    if layout.root:
        layout.notes.append(f"the classes are in folder {layout.root.rstrip('/')}")
    splits = _splits(tree, layout, listing)
    if splits is None:
        _check_classes(tree, layout.root, listing)
        _refuse_parts(tree, layout.root, listing)
        _refuse_alone(tree, layout.root, listing)
        _check_inside(tree, layout)
        _place(listing, tree, layout, layout.root, None)
    else:
        for top, split in zip(_tops(tree, layout.root, list(splits)), splits.values(), strict=True):
            _place(listing, tree, layout, top, split)
    return layout


def _tree(listing: Listing) -> _Tree:
    folders: dict[str, set[str]] = defaultdict(set)
    pictures: dict[str, list[str]] = defaultdict(list)
    for path in listing.folders.union(name.rpartition("/")[0] for name in listing.files.names):
        parts = path.split("/") if path else []
        for depth, part in enumerate(parts):
            folders["".join(f"{above}/" for above in parts[:depth])].add(part)
    filled: set[str] = set()
    for name in listing.files.names:
        folder, separator, base = name.rpartition("/")
        if is_picture := looks_like_picture(base):
            pictures[folder + separator].append(name)
        if is_picture or not suffix(base):
            filled.update(_above(folder + separator, filled))
    return _Tree({folder: sorted(children) for folder, children in folders.items()}, pictures, filled)


def _above(folder: str, known: set[str]) -> Iterator[str]:
    """A folder and those above it, as far as they are not known."""
    while folder not in known:
        yield folder
        if not folder:
            return
        head, separator, _ = folder[:-1].rpartition("/")
        folder = head + separator


def _unwrap(tree: _Tree) -> str:
    root = ""
    while True:
        inside = [name for name in tree.folders.get(root, ()) if tree.below(f"{root}{name}/")]
        if len(inside) != 1 or tree.pictures.get(root) or len(tree.folders[root]) != 1:
            return root
        child = f"{root}{inside[0]}/"
        if inside[0].casefold() in SPLIT_NAMES or tree.pictures.get(child) or not tree.folders.get(child):
            return root
        root = child


def split_like(name: str) -> SplitName | None:
    """The split that a folder's name speaks of, in one of its words: training_set, seg_test, val2017, TrainImages; None for two or none."""
    found = {SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def _words(name: str) -> set[str]:
    return {_WORD_END.sub("", word.casefold()) for word in _WORD.findall(name)}


def _splits(tree: _Tree, layout: Layout, listing: Listing) -> dict[str, SplitName] | None:
    """Which folders of the root are splits; None when they are classes."""
    root = layout.root
    names = tree.folders.get(root, [])
    filled = [name for name in names if tree.below(f"{root}{name}/")]
    found = {name: SPLIT_NAMES[name.casefold()] for name in filled if name.casefold() in SPLIT_NAMES}
    like = {name: split for name in filled if (split := split_like(name))}
    if len(like) > len(found) and "train" in like.values() and len(set(like.values())) > 1:
        found = _by_likeness(tree, layout, like, len(filled), listing)
    others = [name for name in filled if name not in found]
    holding = [name for name in found if tree.folders.get(f"{root}{name}/")]
    if not found or (others and not holding):
        plain = {name: split_like(name) for name in filled if _words(name) <= _PLAIN_WORDS}
        if len(set(plain.values()) - {None}) > 1 and "train" in plain.values():
            _refuse_without_classes(tree, layout.root, [name for name, split in plain.items() if split], listing)
        return None
    _refuse_mixed(root, tree, found, others, holding, listing)
    layout.notes += [f"passed over folder {root}{name}: no picture is in it" for name in names if name not in filled]
    return found


def _by_likeness(tree: _Tree, layout: Layout, like: dict[str, SplitName], folders: int, listing: Listing) -> dict[str, SplitName]:
    """The folders that are splits by names like train and test, as the same class folders lie in them; none where they may be classes.

    Raises DataError where they are nothing but that by their names, and hold other folders or pictures only.
    """
    held = [set(tree.folders.get(top, ())) for top in _tops(tree, layout.root, list(like))]
    shared = set.intersection(*held)
    if len(shared) == 1 and all(len(names) == 1 for names in held):
        _refuse_one_folder(tree, layout.root, like, shared.pop(), listing)
    if len(shared) > 1:
        told = ", ".join(f"{name}/ is the {split} split" for name, split in like.items())
        layout.notes.append(f"{told}: the same class folders lie in them ({some(sorted(shared))})")
        return like
    rests = {split: {_rest(name) for name in like if like[name] == split} for split in like.values()}
    alike = any(rests["train"] & rests[split] for split in rests if split != "train")
    if folders > len(like) and not alike:
        return {name: split for name, split in like.items() if name.casefold() in SPLIT_NAMES}
    _refuse_without_classes(tree, layout.root, list(like), listing)
    return {}


def _rest(name: str) -> tuple[str, ...]:
    """The words of a name without those of splits."""
    return tuple(word for word in map(str.casefold, _WORD.findall(name)) if _WORD_END.sub("", word) not in SPLIT_NAMES)


def _refuse_without_classes(tree: _Tree, root: str, names: list[str], listing: Listing) -> None:
    tables = _tables(listing)
    beside = [labels_beside(listing, folder, tree.pictures.get(folder, [])) for folder in (f"{root}{name}/" for name in names)]
    found = f"; there is also {some(tables)}: {TABLES_WANTED}" if tables else ""
    raise DataError(
        f"{' and '.join(root + name for name in names)} look like splits, and no class folders are in all of them; {WANTED}"
        f"{found}. Where these are the classes, rename them{next(filter(None, beside), '')}"
    )


def _refuse_one_folder(tree: _Tree, root: str, like: dict[str, SplitName], inner: str, listing: Listing) -> None:
    """Refuse splits in each of which all lies in one folder, with class folders in some and pictures alone in others, as GTSRB has them."""
    inside = {name: tree.folders.get(f"{root}{name}/{inner}/", []) for name in like}
    classes = [f"{root}{name}/{inner}" for name, folders in inside.items() if folders]
    alone = [f"{root}{name}/{inner}" for name, folders in inside.items() if not folders]
    tables = [name for name in _tables(listing) if any(name.startswith(f"{folder}/") for folder in alone)]
    if classes and alone:
        raise DataError(
            f"{some(classes)} holds class folders, and {some(alone)} pictures alone; put those into folders of the same classes"
            + (f" (by {some(tables, 2)})" if tables else "")
            + f", or give {classes[0]} as the source, of which a test split is split off"
        )


def _tables(listing: Listing) -> list[str]:
    return [name for name in listing.files.names if is_table(name)]


def _refuse_mixed(root: str, tree: _Tree, found: dict[str, SplitName], others: list[str], holding: list[str], listing: Listing) -> None:
    if others:
        raise DataError(
            f"beside {some(f'{name}/' for name in holding)} there are folders that are not splits: {some(others)}; "
            "move them out of the source, or into the splits"
        )
    for name in found:
        loose = tree.pictures.get(f"{root}{name}/")
        if loose and not tree.folders.get(f"{root}{name}/"):
            beside = _tables(listing)
            remedy = f"where {some(beside)} may give labels: {TABLES_WANTED}"
            raise DataError(
                f"folder {root}{name} holds {len(loose)} pictures (such as {loose[0]}) and no class folders; {WANTED}; "
                + (remedy if beside else "pictures without a class cannot be used: move them out of the source")
                + labels_beside(listing, f"{root}{name}/", loose)
            )
    for split in set(found.values()):
        same = [name for name in found if found[name] == split]
        if len(same) > 1:
            raise DataError(f"folders {some(same)} are both the {split} split; merge them into one")
    if "train" not in found.values():
        raise DataError(f"there are only {some(found)} and no train folder in {root or 'the source'}; add train/ with its class folders")


def _tops(tree: _Tree, root: str, splits: list[str]) -> list[str]:
    """The folder of each split that holds its class folders: below a wrapper of its own name (train/train), or one that all have."""
    if all(tree.folders.get(f"{root}{name}/") == [name] and not tree.pictures.get(f"{root}{name}/") for name in splits):
        return [f"{root}{name}/{name}/" for name in splits]
    inner = _common_wrapper(tree, root, splits)
    return [f"{root}{name}/{inner}" for name in splits]


def _common_wrapper(tree: _Tree, root: str, splits: list[str]) -> str:
    """The wrapper that all splits have alike (train/images/cat, test/images/cat): "images/", else ""."""
    inner = ""
    while True:
        children = {tuple(tree.folders.get(f"{root}{split}/{inner}", ())) for split in splits}
        if len(children) != 1 or len(only := next(iter(children))) != 1:
            return inner
        deeper = f"{inner}{only[0]}/"
        here, below = [f"{root}{split}/{inner}" for split in splits], [f"{root}{split}/{deeper}" for split in splits]
        if any(tree.pictures.get(folder) for folder in here + below) or not all(tree.folders.get(folder) for folder in below):
            return inner
        inner = deeper


def _check_classes(tree: _Tree, root: str, listing: Listing) -> None:
    loose, folders = tree.pictures.get(root, []), tree.folders.get(root, [])
    if not listing.files and listing.faults:
        fault = listing.faults[0]
        raise DataError(f"{listing.address} holds nothing that can be read, such as {fault.input}: {fault.reason}")
    if not listing.files:
        raise DataError(f"{listing.address} holds no files; {WANTED}")
    if all(map(is_archive, listing.files.names)):
        raise DataError(f"{listing.address} holds only archives ({some(listing.files.names)}); unpack them, or give one; {WANTED}")
    if not folders:
        found = f"{len(loose)} pictures (such as {loose[0]})" if loose else f"only {some(listing.files.names)}"
        found += f", and {some(tables)}, where {TABLES_WANTED}" if (tables := _tables(listing)) and loose else ""
        raise DataError(f"{listing.address} has no class folders: found {found}; {WANTED}{labels_beside(listing, root, loose)}")
    if not tree.below(root):
        kinds = some(listing.files.names)
        raise DataError(f"{listing.address} holds no pictures: found {kinds}; {WANTED}")
    for folder in (f"{root}{name}/" for name in folders if not tree.below(f"{root}{name}/")):
        if rows := [name for name in listing.files.names if name.startswith(folder) and suffix(name) in parquet.SUFFIXES]:
            raise DataError(
                f"folder {folder} holds no pictures as files, but {some(rows, 3)}, whose rows are read where nothing else is a picture: "
                f"give {folder} as the source, or remove it"
            )


def _check_inside(tree: _Tree, layout: Layout) -> None:
    """Look for folders of one name in several classes: these may be splits or parts, and the folders in them the classes."""
    filled = [name for name in tree.folders.get(layout.root, ()) if tree.below(f"{layout.root}{name}/")]
    tops = dict(zip(filled, _tops(tree, layout.root, filled), strict=True)) if len(filled) > 1 else {}
    inside = {name: {child for child in tree.folders.get(top, ()) if tree.below(f"{top}{child}/")} for name, top in tops.items()}
    counts = Counter(chain.from_iterable(inside.values()))
    shared = sorted(child for child, count in counts.items() if count > 1)
    holding = some(name for name, children in inside.items() if children.intersection(shared))
    everywhere = all(children == set(shared) for children in inside.values())
    if are_pictures_and_masks(shared):
        raise DataError(
            f"folders of pictures and of their masks ({some(shared)}) lie in {holding}, and a classifier takes one label per picture; "
            "move the masks out of the source"
        )
    if len(shared) > 1 and (everywhere or not any(map(tree.pictures.get, tops.values()))):
        raise DataError(
            f"the same folders ({some(shared)}) lie in {holding}: which are the classes, and which are splits or parts? "
            f"Splits are called train, test and val, and lie above the classes; for anything else give a table of labels as the source"
        )
    if shared and not everywhere:
        layout.notes.append(f"folders of the same names ({some(shared)}) lie in {holding}: a picture's class is the folder at the top")


def _refuse_parts(tree: _Tree, root: str, listing: Listing) -> None:
    """Refuse folders that are named like parts of one set, where a table lies beside them that may give the labels."""
    filled = [name for name in tree.folders.get(root, ()) if tree.below(f"{root}{name}/")]
    beside = [name for name in _tables(listing) if name.rpartition("/")[0] == root.rstrip("/")]
    if beside and are_numbered_parts(filled):
        raise DataError(
            f"folders {some(filled)} are named like parts of one set, and {some(beside)} may hold its labels: {TABLES_WANTED}. Where these "
            "folders are the classes, rename them"
        )


def _refuse_alone(tree: _Tree, root: str, listing: Listing) -> None:
    """Refuse pictures that lie in one folder, beside a file that may hold their labels and is not read as that."""
    filled = [name for name in tree.folders.get(root, ()) if tree.below(f"{root}{name}/")]
    beside = [name for name in listing.files.names if name.rpartition("/")[0] == root.rstrip("/")]
    tables = [name for name in beside if is_table(name) or (_LABEL_FILE.search(name) and not looks_like_picture(name))]
    if len(filled) != 1:
        return
    inside = [name for name in tree.folders.get(f"{root}{filled[0]}/", ()) if tree.below(f"{root}{filled[0]}/{name}/")]
    if len(inside) > 1:
        raise DataError(
            f"all pictures lie in folder {root}{filled[0]}, which is not alone: where its folders ({some(inside)}) are the classes, "
            f"give {root}{filled[0]} as the source (of an archive: unpacked)"
        )
    if tables:
        read = [f"{listing.address.rstrip('/')}/{name}" for name in tables if is_table(name)]
        give = (
            f"give {read[0]} (of an archive: unpacked) as the source if it has"
            if len(read) == 1
            else "give a CSV or JSONL as the source that has"
        )
        raise DataError(
            f"all pictures lie in one folder ({root}{filled[0]}), and {some(tables)} may hold their labels: {give} {COLUMNS_WANTED}"
        )


def _refuse_repeated(tree: _Tree, top: str) -> None:
    """Refuse a folder among the classes that holds folders named like them: mostly the same data once more."""
    names = set(tree.folders.get(top, ()))
    for name in sorted(names):
        again = sorted((names - {name}).intersection(tree.folders.get(f"{top}{name}/", ())))
        if len(again) > 1:
            raise DataError(
                f"folder {top}{name} lies among the classes and holds folders named like them ({some(again)}): is it the same data once "
                "more, or a part of it? Move it out of the source, or its folders into those of their names"
            )


def _place(listing: Listing, tree: _Tree, layout: Layout, top: str, split: SplitName | None) -> None:
    _refuse_repeated(tree, top)
    layout.class_names.update(tree.folders.get(top, ()))
    deep = ""
    for name in listing.files.names:
        if name.startswith(top):
            class_name, separator, rest = name[len(top) :].partition("/")
            if separator:
                layout.places[name] = place_of(class_name, split)
                deep = deep or (name if "/" in rest else "")
    if deep:
        layout.notes.append(
            f"pictures lie in folders within the class folders, such as {deep}: its class is {deep[len(top) :].partition('/')[0]}"
        )
