"""Ingest: from a source of labelled pictures to a dataset version, checked and split.

| module | concern |
|---|---|
| component.py | what KFP sees |
| ingest.py | the order of the work |
| options.py | what a user can set |
| sources.py | which kind of source an address is |
| digits.py, published.py | scikit-learn's digits; the sets that torchvision downloads |
| folders.py, objects.py, archives.py | the files of a local folder, an S3 prefix, a tar or zip |
| listing.py | what those three have in common: members, folders, and what is passed over |
| idx.py | IDX files (MNIST's format) among the members |
| layout.py | classes and splits, read from the members' paths |
| columns.py | columns.csv, which gives a picture further attributes |
| decoding.py | members to pixels, in threads, into a scratch file |
| collection.py | labelled pictures, before they are checked |
| checks.py, duplicates.py | what fails a run, or is reported |
| split.py | who trains, who validates, who tests |
"""
