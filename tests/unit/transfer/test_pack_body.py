"""What the body of a pack reports while it is sent."""

from __future__ import annotations

from fakes import Clock

from uploader_cli.transfer.bodies import COUNT_EVERY, Body, pack_form


def test_body_of_a_pack_reports_its_bytes_at_most_four_times_a_second() -> None:
    clock, counted = Clock(), list[int]()
    body = Body(*pack_form(b"{}", [bytes(1000)]), checkpoint=lambda: None, on_count=counted.append, clock=clock)
    for _ in range(100):
        clock.pass_(0.02)
        body.taken(10)
    assert counted == sorted(counted)
    assert len(counted) in (6, 7, 8), "in two seconds"
    assert COUNT_EVERY == 0.25
