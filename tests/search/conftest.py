"""One thread for torch, as in the tests of training."""

from tests.train.conftest import one_thread as one_thread
