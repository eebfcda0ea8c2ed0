import itertools
import multiprocessing
import resource
from functools import partial

import pytest
from killing import killed_before
from noise import SAMPLER, Noise, plan_of

from stdiff.config.generator import SamplerConfig
from stdiff.corpus.grow import grow_corpus
from stdiff.corpus.shards import verify_corpus
from stdiff.runtime.files import InputError

fork = multiprocessing.get_context("fork")


@pytest.fixture
def plan(tmp_path):
    return plan_of(tmp_path / "plan.parquet", 11)


def grow(folder, plan, generator=None):
    return grow_corpus(folder, plan, generator or Noise(), shard_size=4, sampler=SAMPLER)


def contents(folder):
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_corpus_is_made_once_and_a_longer_plan_adds_to_it(tmp_path, plan):
    folder = tmp_path / "corpus"
    grown = grow(folder, plan)
    assert (grown.kept, grown.made, grown.elsewhere) == (0, 3, [])
    assert verify_corpus(sorted(folder.iterdir()), plan) == []
    before = contents(folder)
    idle = Noise()
    assert grow(folder, plan, idle).kept == 3 and idle.made == 0
    assert contents(folder) == before

    longer = plan_of(tmp_path / "longer.parquet", 19)
    grown = grow(folder, longer)
    # The last shard was short.
    assert (grown.kept, grown.made) == (2, 3)
    assert verify_corpus(sorted(folder.iterdir()), longer) == []
    after = contents(folder)
    assert all(after[name] == before[name] for name in ("00000.parquet", "00001.parquet"))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[: len(data) // 2], "not a readable"),
        (lambda data: b"", "not a readable"),
        (lambda data: data[:400] + bytes([data[400] ^ 4]) + data[401:], ""),
    ],
)
def test_a_damaged_shard_is_made_again_and_the_log_says_why(tmp_path, plan, capsys, spoil, said):
    folder = tmp_path / "corpus"
    grow(folder, plan)
    whole = contents(folder)
    shard = folder / "00001.parquet"
    shard.write_bytes(spoil(whole["00001.parquet"]))
    grown = grow(folder, plan)
    assert (grown.kept, grown.made) == (2, 1)
    assert contents(folder) == whole
    printed = "".join(capsys.readouterr())
    assert "made again" in printed and "00001.parquet" in printed and said in printed


def test_a_model_replaced_halfway_makes_all_of_it_again(tmp_path, plan, capsys):
    folder = tmp_path / "corpus"
    grow(folder, plan)
    (folder / "00002.parquet").unlink()
    other = Noise("b" * 64)
    assert grow(folder, plan, other).made == 3
    assert verify_corpus(sorted(folder.iterdir()), plan) == []
    printed = "".join(capsys.readouterr())
    assert "was made with model_sha256 aaaaaaaaaaaa" in printed and "not bbbbbbbbbbbb" in printed
    # The pictures of other settings are other pictures.
    more_steps = SamplerConfig(batch=2, steps=9)
    grown = grow_corpus(folder, plan, other, shard_size=4, sampler=more_steps)
    assert (grown.kept, grown.made) == (0, 3)
    assert "was made with sampler" in "".join(capsys.readouterr())


def test_two_workers_share_a_corpus_and_make_each_shard_once(tmp_path, plan):
    calm, shared = tmp_path / "calm", tmp_path / "shared"
    grow(calm, plan)
    made = fork.Queue()

    both_at_work = fork.Barrier(2)

    def work():
        generator = Noise()
        generate = generator.generate

        def waits_for_the_other(*arguments):
            if not generator.made:
                both_at_work.wait()
            return generate(*arguments)

        generator.generate = waits_for_the_other
        grow(shared, plan, generator)
        made.put(generator.made)

    workers = [fork.Process(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    counts = [made.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(counts) == 12 and min(counts) > 0
    assert contents(shared) == contents(calm)


def test_a_worker_killed_at_any_step_leaves_whole_shards(tmp_path, plan):
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    grow(calm, plan)
    for step in itertools.count(1, 4):
        killed = killed_before(step, partial(grow, rough, plan))
        for shard in rough.glob("[0-9]*.parquet"):
            assert shard.read_bytes() == (calm / shard.name).read_bytes()
            shard.unlink()
        if not killed:
            break
    assert step > 12
    grow(rough, plan)
    assert contents(rough) == contents(calm)


def test_a_full_disk_leaves_what_was_whole(tmp_path, plan):
    calm, full = tmp_path / "calm", tmp_path / "full"
    grow(calm, plan)
    grow(full, plan)
    (full / "00001.parquet").unlink()

    def run_out_of_space():
        size = (calm / "00001.parquet").stat().st_size // 2
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        with pytest.raises(OSError, match="File too large"):
            grow(full, plan)

    worker = fork.Process(target=run_out_of_space)
    worker.start()
    worker.join()
    assert worker.exitcode == 0
    assert set(contents(full)) == {"00000.parquet", "00002.parquet"}
    grow(full, plan)
    assert contents(full) == contents(calm)


def test_an_empty_plan_is_refused(tmp_path):
    with pytest.raises(InputError, match="the plan has no rows"):
        grow(tmp_path / "corpus", plan_of(tmp_path / "none.parquet", 0))
