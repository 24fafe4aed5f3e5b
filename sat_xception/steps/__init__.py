"""The registry of verbs: the settings of each step, and the function that does its work.

The command line, the components and the tests all read it, so a setting has one name, one default and one description.
Nothing here imports TensorFlow; a step's module is imported when the step runs.
"""

from sat_xception.steps.registry import (
    BULK_PIPELINE_VERBS,
    BULK_VERBS,
    DATASET_VERBS,
    MODELS_VERBS,
    PIPELINE_VERBS,
    SCHEDULE_VERBS,
    STEPS,
    TERMINATION_LOG_ENV,
    Step,
    StepResult,
    reporting_errors,
    run_step,
    step_named,
)

__all__ = [
    "BULK_PIPELINE_VERBS",
    "BULK_VERBS",
    "DATASET_VERBS",
    "MODELS_VERBS",
    "PIPELINE_VERBS",
    "SCHEDULE_VERBS",
    "STEPS",
    "TERMINATION_LOG_ENV",
    "Step",
    "StepResult",
    "reporting_errors",
    "run_step",
    "step_named",
]
