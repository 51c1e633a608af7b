"""The number of units of an input by its files."""

from beamlabel.pipeline.job.settings import least_unit_rows
from beamlabel.transforms.inputs.sources.source import SourceOptions
from beamlabel.transforms.records import InputFile


def units(files, rows):
    options = SourceOptions("/", min_unit_rows=least_unit_rows(files))
    count, planned = 0, 0
    while planned < rows:
        planned += options.unit_rows(planned)
        count += 1
    return count * len(files)


def large(count):
    return [InputFile(f"{number}.txt", "text", 40 << 20) for number in range(count)]


def test_many_large_files_are_not_each_begun_with_small_units():
    each = {count: units(large(count), 1_000_000) / count for count in (1, 10, 100, 1000, 10_000)}
    assert list(each.values()) == sorted(each.values(), reverse=True)
    assert (each[1], each[1000], each[10_000]) == (427, 100, 100)


def test_small_files_and_few_files_are_cut_as_fine_as_ever():
    small = [InputFile(f"{number}.txt", "text", 4000) for number in range(5000)]
    assert least_unit_rows(small) == least_unit_rows(large(7)) == least_unit_rows(large(1)) == 64
