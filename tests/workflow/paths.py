"""The paths that a deployed pipeline can take."""

from collections.abc import Callable

from tests.workflow import paths_of_models as models
from tests.workflow import paths_of_runs as runs
from tests.workflow import people
from tests.workflow.pipeline import Pipeline

Path = Callable[[Pipeline], None]
PATHS: tuple[Path, ...] = (
    runs.estimate,
    runs.unused_upload,
    runs.explanation_that_fails,
    runs.sweep_that_fails,
    runs.earlier_data_of_a_run_that_nobody_knows,
    runs.stopped_before_the_folder_settled,
    runs.invalid_data,
    runs.pinned_file_vanishes,
    runs.folder_without_a_request,
    runs.answers_are_refused,
    runs.job_fails,
    runs.job_under_way_is_stopped_by_the_failure,
    runs.stopped_in_training,
    runs.orphaned_job,
    runs.redriven_before_the_job,
    runs.usual,
    runs.provisioned,
    runs.training_metrics_vanish,
    runs.redriven_before_a_deployment,
    runs.redriven_before_a_throughput,
    runs.stopped_while_a_deployment_serves,
    runs.stopped_while_a_throughput_serves,
    runs.deployment_is_deleted_while_it_is_asked,
    runs.throughput_is_deleted_while_it_is_asked,
    runs.orphaned_deployment,
    runs.orphaned_throughput,
    models.model_that_nobody_keeps,
    runs.failed_deployment_is_made_anew,
    runs.failed_throughput_is_made_anew,
    runs.repeated,
    runs.deployment_fails_and_the_next_attempt_adopts_the_model,
    runs.throughput_fails_and_the_next_attempt_adopts_the_model,
    runs.base_model_behind_an_inference_profile,
    models.promoted_kept_and_withdrawn,
    runs.forgotten_while_a_deployment_is_made,
    runs.forgotten_while_a_throughput_is_made,
    models.kept_throughput_is_released_when_asked,
    models.promoted_rolled_back_and_expired,
    models.rolled_back_to_a_deployment_that_still_serves,
    models.rolled_back_to_a_throughput_that_still_serves,
    models.swapped_behind_the_deployment_in_use,
    models.swapped_behind_the_deployment_in_use_and_not_served_by_units,
    models.swap_that_nobody_waits_for_is_undone,
    models.serving_in_use_ends_and_the_model_before_takes_its_place,
    models.served_model_in_use_is_released_and_so_is_the_one_before,
    models.other_test_records_than_those_of_the_model_in_use,
    runs.job_stalls,
    runs.large_file_whose_upload_breaks,
    people.people_at_work,
)


def clear(pipeline: Pipeline) -> None:
    """Take away what a walk has left, however it ended, and begin anew."""
    pipeline.inject()
    pipeline.function_faults.clear()
    pipeline.finish()
    bedrock = pipeline.aws.session().client("bedrock")
    for arn in pipeline.bedrock.live_resources():
        try:
            if ":model-customization-job/" in arn:
                bedrock.stop_model_customization_job(jobIdentifier=arn)
            elif ":custom-model-deployment/" in arn:
                bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
            elif ":provisioned-model/" in arn:
                bedrock.delete_provisioned_model_throughput(provisionedModelId=arn)
        except bedrock.exceptions.ConflictException:  # it is being made or changed
            pipeline.pass_time(minutes=30)
            clear(pipeline)
            return
    pipeline.forget()
