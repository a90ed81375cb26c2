"""A folder that Hugging Face's `datasets` saved to disk: which of its Arrow files belong to it, and to which split.

dataset_dict.json          {"splits": ["train", "test"]}, where there are several
train/state.json           _data_files: the names of its Arrow files; what else lies there is a cache
train/data-00000-of-00002.arrow
"""

import json
from dataclasses import dataclass
from typing import Any

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError, ImageError
from components.ingest.layout import record_of
from components.readers.listing import Listing, SourceFile, some
from components.readers.places import InputSource
from components.readers.processes import load
from components.readers.table import SPLIT_NAMES

_DICTIONARY, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


@dataclass(frozen=True)
class SavedDataset:
    """The Arrow files of a saved dataset in their order, and the split of each (None: to be split)."""

    splits: dict[str, SplitName | None]
    read_too: set[str]
    """Names of its other files."""


def find(source: InputSource, listing: Listing) -> SavedDataset | None:
    """The saved dataset that a source is, None where it is none.

    Raises DataError where a split or a file that it names is not there, or its rows have an order of their own.
    """
    files = {file.name: file for file in listing.files}
    states = [name for name in files if name.rpartition("/")[2] == _STATE]
    if not states:
        return None
    dictionaries = {name.removesuffix(_DICTIONARY): _json(source, files[name]) for name in files if name.rpartition("/")[2] == _DICTIONARY}
    if len(states) > 1 and len(dictionaries) != 1:
        raise DataError(f"{listing.address} holds several saved datasets ({some(states)}); give the folder of one")
    if not dictionaries:
        splits: dict[str, SplitName | None] = dict.fromkeys(_data_files(source, files, states[0].removesuffix(_STATE)))
    else:
        ((root, document),) = dictionaries.items()
        splits = {}
        for name in document.get("splits") or []:
            split = SPLIT_NAMES.get(str(name).casefold())
            if split is None or split in splits.values():
                raise DataError(f"{root}{_DICTIONARY} names split {name!r}; save the splits train, validation and test, each once")
            splits |= dict.fromkeys(_data_files(source, files, f"{root}{name}/"), split)
        if "train" not in splits.values():
            raise DataError(f"{root}{_DICTIONARY} names no split train; save it too, or give the folder of the one split as the source")
    return SavedDataset(splits, {name for name in files if name.rpartition("/")[2] in {_DICTIONARY, _STATE, _INFO}})


def _data_files(source: InputSource, files: dict[str, SourceFile], folder: str) -> list[str]:
    state = f"{folder}{_STATE}"
    if state not in files:
        raise DataError(f"{state} is not there, which names the files of its split; copy the folder again")
    document = _json(source, files[state])
    names = [f"{folder}{entry.get('filename')}" for entry in document.get("_data_files") or [] if isinstance(entry, dict)]
    if not names:
        raise DataError(f"{state} names no files; save the dataset again")
    if missing := [name for name in names if name not in files]:
        raise DataError(f"{state} names {some(missing)}, which is not there; copy the folder again")
    if document.get("_indices_files") or document.get("_indices_data_files"):
        raise DataError(f"{state} gives the rows an order of their own; load it, and save dataset.flatten_indices() again")
    return names


def _json(source: InputSource, file: SourceFile) -> dict[str, Any]:
    try:
        found = json.loads(load(record_of(source, file)))
    except (ImageError, ValueError, RecursionError) as error:
        raise DataError(f"{file.name} cannot be read as JSON ({error}); copy it again") from error
    if not isinstance(found, dict):
        raise DataError(f"{file.name} is not a JSON object; copy it again")
    return found
