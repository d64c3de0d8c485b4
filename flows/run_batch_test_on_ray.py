"""Deployment entry point: the batch test on Ray (RAY_ADDRESS, or a private one for the run)."""

from wtb_prefect import batch_test
from wtb_prefect.api.ray_task_runner import SegmentRayTaskRunner

run_batch_test_on_ray = batch_test.with_options(task_runner=SegmentRayTaskRunner())
