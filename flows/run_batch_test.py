"""Deployment entry point: the batch test on Prefect's threads, for light graphs."""

from prefect.task_runners import ThreadPoolTaskRunner

from wtb_prefect import batch_test

run_batch_test = batch_test.with_options(task_runner=ThreadPoolTaskRunner())
