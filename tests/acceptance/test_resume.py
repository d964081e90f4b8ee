"""A hospital's machine that is switched off in the middle of every round finishes them all the same."""

import msgspec

from broker.weights import load_model
from deploy.local import SitePlan
from site_worker.checkpoint import Asked
from site_worker.rounds import LocalRounds
from site_worker.tasks.task import load_task
from tests.acceptance.books import settled
from tests.acceptance.federation import TINY, Federation
from tests.site_worker.drafts import done


def continued(federation: Federation, step: int) -> bool:
    return f"continuing site=a version=0 step={step}\n" in federation.log("a")


def test_a_round_killed_and_then_stopped_in_the_middle_ends_on_the_bits_of_one_left_alone(
    federation: Federation,
) -> None:
    federation.prepare(SitePlan("a", {}, step_delay_s=600.0), versions=1)
    folder = federation.site("a")
    text = folder.settings_file.read_text()
    folder.settings_file.write_text(text.replace("checkpoint_s = 60.0", "checkpoint_s = 0.000001"))
    state = folder.round_folder / "state.safetensors"
    federation.start()
    federation.eventually("its first step is kept", state.is_file)
    kept = msgspec.json.decode((folder.round_folder / "announcement.json").read_bytes(), type=Asked)
    _, base = load_model(folder.round_folder / "base.safetensors")
    federation.kill("a")
    before = state.read_bytes()
    federation.start_site("a")
    federation.eventually("it goes on after step 1", lambda: continued(federation, 1))
    federation.eventually("its second step is kept", lambda: state.read_bytes() != before)
    assert federation.stop("a") == 0
    federation.hurry("a")
    federation.start_site("a")
    federation.reaches(1)
    assert continued(federation, 2)
    assert settled(federation).accepted == 1
    settings = msgspec.structs.replace(folder.settings(), step_delay_s=0.0)
    local = LocalRounds(settings, load_task(TINY, {}), folder=None)
    alone = done(local, kept.announcement, base)
    ((payload, steps),) = federation.journal("SELECT payload, steps FROM updates")
    assert (bytes(payload), steps) == (alone.payload, 3)
