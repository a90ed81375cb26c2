"""The list of a source's files: what was put in comes out in order, in few bytes each."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from components.readers.listing import Files, SourceFile

TEXTS = st.text("ab/é0", max_size=4)
STAMPS = st.one_of(st.just(""), st.integers(0, 10**19).map(str), st.sampled_from(["007", '"etag"', "-1", "٣"]))


@given(st.lists(st.builds(SourceFile, TEXTS, st.integers(0, 2**40), STAMPS, TEXTS, st.integers(0, 2**40))))
def test_files_come_back_as_they_were_put_in_in_the_order_of_their_names(files: list[SourceFile]) -> None:
    kept = Files()
    for file in files:
        kept.append(file)
    assert [*kept] == files
    kept.sort()
    assert [*kept] == sorted(files, key=lambda file: file.name)


def test_a_file_takes_its_name_and_few_bytes_more() -> None:
    files, names = Files(), [f"class/{number:06d}.png" for number in range(20_000)]
    tracemalloc.start()
    for number, name in enumerate(names):
        files.append(SourceFile(name, number + 300, str(1_700_000_000_000_000_000 + number), name, 512 * number))
    files.sort()
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 45 * len(names)
