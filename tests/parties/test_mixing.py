"""Rows of several owners in an order that nobody knows: kept jointly, and nobody's to look at."""

import numpy as np
import pytest

import tessera as ts
from mpc.errors import NotPermitted, RangeError, UsageError
from parties.client.mixing import mixed


def rows(seed, count):
    rng = np.random.default_rng(seed)
    x = np.round(rng.uniform(-1, 1, (count, 4)) * 256) / 256
    return x, np.eye(3)[x[:, :3].argmax(1)]


def test_all_rows_are_there_and_nobodys_to_look_at():
    cluster = ts.MemoryCluster(parties=2, clients=("north", "south", "study"))
    with cluster, ts.Client(cluster, name="north") as north, ts.Client(cluster, name="south") as south:
        for seed, client in enumerate((north, south)):
            x, y = rows(seed, 12 - 6 * seed)
            data = ts.DataSet({"x": x, "y": y}, ranges={"x": (-1, 1), "y": (0, 1)}, fraction_bits=8)
            client.upload(data, "data")
            client.allow("data", "study", schema=True)

        def all_say_yes(program):
            for client in (north, south):
                client.approve(program)

        with ts.Client(cluster, name="study") as study:
            together = ts.mixed([study.data("north/data"), study.data("south/data")])
            with pytest.raises(NotPermitted):
                study.keep(together, "rows")
            all_say_yes(study.request(together, "to learn"))
            data = study.keep(together, "rows")
            # The order takes no round: each owner's rows are checked to lie in their range, and all are kept.
            assert study.last_run.online.rounds == study.last_run.predicted.online_rounds == 4
            assert study.last_run.online.bytes == study.last_run.predicted.online_bytes_per_party
            with pytest.raises(NotPermitted):
                study.reveal(data["x"])
            # All of them are there, each with its answer, once both say that it may be seen.
            both = [data["x"], data["y"]]
            all_say_yes(study.request(both, "to be seen"))
            x, y = study.reveal(both)
            expected = [np.concatenate(each) for each in zip(rows(0, 12), rows(1, 6), strict=True)]
            found, wanted = (np.hstack(each) for each in ((x, y), expected))
            assert sorted(map(tuple, found)) == sorted(map(tuple, wanted)) and not np.array_equal(found, wanted)


async def test_what_cannot_be_mixed(site):
    async with site.client() as clinic:
        x, y = rows(1, 4)
        data = await clinic.upload(ts.DataSet({"x": x, "y": y}, low=-1, high=1), "data")
        other = await clinic.upload(ts.DataSet({"a": x}, low=-1, high=1), "other")
        many = await clinic.upload(ts.DataSet({"x": np.zeros(8193), "y": np.zeros(8193)}, low=0, high=1), "many")
        for given, error in (((), UsageError), ([data, other], UsageError), (x, UsageError), (many, RangeError)):
            with pytest.raises(error):
                mixed(given)
