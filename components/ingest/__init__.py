"""Ingest: from a source of labelled pictures to a dataset version, checked and split. Files are read by `components.readers`.

| module | concern |
|---|---|
| component.py | what KFP sees |
| ingest.py | the order of the work |
| sources.py | which kind of source an address is; its pictures as a collection |
| published.py | sets known by name: scikit-learn's digits, and those that torchvision downloads |
| layout.py | classes and splits, read from the pictures' paths |
| unread.py | sets whose own files of labels are not read, and what to do with them |
| labels.py | labels from tables, webdataset and Parquet |
| tables.py | tables of labels, one for all or one per split, and the pictures that they name |
| saved_dataset.py | Hugging Face's datasets as `save_to_disk` leaves them |
| arrays.py | arrays of pictures with their labels: IDX (MNIST's format) and NumPy |
| pixels.py | encoded pictures to pixels, in processes or threads, into a scratch file |
| collection.py | labelled pictures, before they are checked |
| checks.py | what fails a run, or is reported; weights |
| split.py | assigns each picture to a split; groups, such as a patient's, stay in one |
| likeness.py | pictures of two splits that look alike |
| extra.py | pictures for training only, from a second source |
"""
