import threading

import pytest

from gptbox.engine.team import Team


def test_each_rank_works_on_a_thread_of_its_own() -> None:
    team, seen = Team(3), {}
    meet = threading.Barrier(3)

    def work(rank: int) -> None:
        meet.wait(5)
        seen[rank] = threading.current_thread()

    team.run(work)
    assert sorted(seen) == [0, 1, 2]
    assert len(set(seen.values())) == 3
    assert seen[0] is threading.current_thread()
    team.close()


def test_fewer_can_be_asked_for() -> None:
    team, seen = Team(3), []
    team.run(seen.append, 1)
    assert seen == [0]
    team.close()


@pytest.mark.parametrize("failing", [0, 1])
def test_an_exception_of_any_is_raised_and_the_team_goes_on(failing: int) -> None:
    team = Team(2)

    def work(rank: int) -> None:
        if rank == failing:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        team.run(work)
    team.run(lambda rank: None)
    team.close()
