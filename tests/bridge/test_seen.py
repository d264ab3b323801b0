"""Topics of another machine where people look: the live page, `GET /topics`, `/metrics`."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
from playwright.sync_api import expect
from prometheus_client.parser import text_string_to_metric_families

from bridge.conftest import Host
from bridge.test_frames import publisher, subscriber, take
from live.conftest import browser, visit
from live.page import newer, tile
from server_process import Launch, launch

__all__ = ["browser", "launch", "visit"]


def test_topics_of_another_machine_are_on_the_page_and_in_the_metrics(
    robot: Host, desk: Host, endpoint: str, launch: Launch, visit: Any
) -> None:
    camera = publisher(robot, "camera/front", dtype="uint8", shape=(90, 160, 3), slots=8)
    robot.bridge("--listen", endpoint, "--publish", "camera/**")
    desk.bridge("--zenoh", endpoint, "--subscribe", "camera/**")
    words = ("--topics", "/topics", "--live", "/live", "--metrics-path", "/metrics")
    server = launch(
        "supervised_apps:app", *words, extra={"FRAMEGATE_RUNTIME_DIR": str(desk.runtime)}
    ).wait_ready()
    with camera, subscriber(desk, "camera/front") as frames:
        page = visit(server).page
        for shade in range(1, 4):
            camera.send(np.full((90, 160, 3), shade, np.uint8))
            with take(frames) as frame:
                sequence = frame.sequence
            newer(page, '.tile[data-topic="camera/front"]', sequence - 1)
        expect(tile(page, "camera/front")).to_have_attribute("data-state", "live")
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
            asked = client.get("/topics/camera/front", params={"view": "participants"})
            roles = {one["role"]: one["name"] for one in asked.json()["participants"]}
            metrics = client.get("/metrics").text
    assert roles["publisher"] == "platform bridge"
    published = {
        sample.labels["topic"]: sample.value
        for family in text_string_to_metric_families(metrics)
        for sample in family.samples
        if sample.name == "framegate_topic_frames_published_total"
    }
    assert published == {"camera/front": float(sequence)}
