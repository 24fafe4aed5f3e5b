"""What each step takes: one configuration class a step, and the function that does the work.

The command line, the components and the tests all read this table, so a setting has one name, one default and one
description. Nothing here imports TensorFlow; a step's module is imported when the step runs.
"""

from sat_xception.steps.assemble import AssembleConfig, LabelsConfig
from sat_xception.steps.bulk import (
    BulkImageryConfig,
    BulkPlanConfig,
    BulkPredictConfig,
    BulkRetryConfig,
    BulkSimulateConfig,
    BulkStatusConfig,
    ScoringConfig,
)
from sat_xception.steps.data import (
    BuildConfig,
    ConvertConfig,
    DiffConfig,
    ExportFoldersConfig,
    SampleAreaConfig,
    ValidateConfig,
)
from sat_xception.steps.model import (
    SMALLEST_INPUT,
    BackboneName,
    EvaluateConfig,
    GateConfig,
    PackageConfig,
    TrainConfig,
    TrainFoldersConfig,
)
from sat_xception.steps.publish import PublishConfig, ReviewConfig
from sat_xception.steps.rollout import DeployConfig, DeploymentsConfig, RollbackConfig, RolloutConfig
from sat_xception.steps.search import SearchConfig
from sat_xception.steps.serving import (
    ListModelsConfig,
    NotifyConfig,
    PredictConfig,
    RemoveModelsConfig,
    ServeConfig,
    ShowModelConfig,
    VerifyModelConfig,
)
from sat_xception.steps.table import (
    BULK_VERBS,
    DATASET_VERBS,
    MODELS_VERBS,
    STEPS,
    TERMINATION_LOG_ENV,
    Step,
    StepResult,
    run_step,
    step_named,
    telling_why,
)

__all__ = [
    "BULK_VERBS",
    "DATASET_VERBS",
    "MODELS_VERBS",
    "SMALLEST_INPUT",
    "STEPS",
    "TERMINATION_LOG_ENV",
    "AssembleConfig",
    "BackboneName",
    "BuildConfig",
    "BulkImageryConfig",
    "BulkPlanConfig",
    "BulkPredictConfig",
    "BulkRetryConfig",
    "BulkSimulateConfig",
    "BulkStatusConfig",
    "ConvertConfig",
    "DeployConfig",
    "DeploymentsConfig",
    "DiffConfig",
    "EvaluateConfig",
    "ExportFoldersConfig",
    "GateConfig",
    "LabelsConfig",
    "ListModelsConfig",
    "NotifyConfig",
    "PackageConfig",
    "PredictConfig",
    "PublishConfig",
    "RemoveModelsConfig",
    "ReviewConfig",
    "RollbackConfig",
    "RolloutConfig",
    "SampleAreaConfig",
    "ScoringConfig",
    "SearchConfig",
    "ServeConfig",
    "ShowModelConfig",
    "Step",
    "StepResult",
    "TrainConfig",
    "TrainFoldersConfig",
    "ValidateConfig",
    "VerifyModelConfig",
    "run_step",
    "step_named",
    "telling_why",
]
