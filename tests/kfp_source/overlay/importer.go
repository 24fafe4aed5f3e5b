package component

import (
	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/backend/src/v2/metadata"
	"google.golang.org/protobuf/encoding/protojson"
)

// NewImporterOf returns an importer without a Kubernetes client, which NewImporterLauncher only makes in a pod.
func NewImporterOf(
	client *metadata.Client, componentJSON, importerJSON, taskJSON string, options ImporterLauncherOptions,
) (*ImportLauncher, error) {
	launcher := &ImportLauncher{
		component:               &pipelinespec.ComponentSpec{},
		importer:                &pipelinespec.PipelineDeploymentConfig_ImporterSpec{},
		task:                    &pipelinespec.PipelineTaskSpec{},
		importerLauncherOptions: options,
		metadataClient:          client,
	}
	if err := protojson.Unmarshal([]byte(componentJSON), launcher.component); err != nil {
		return nil, err
	}
	if err := protojson.Unmarshal([]byte(importerJSON), launcher.importer); err != nil {
		return nil, err
	}
	return launcher, protojson.Unmarshal([]byte(taskJSON), launcher.task)
}
