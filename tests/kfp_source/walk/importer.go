package main

import (
	"context"
	"strconv"

	"github.com/kubeflow/pipelines/backend/src/v2/component"
)

// importArtifact runs KFP's importer. It needs a cluster only to copy to a workspace; NewImporterOf is ours, and is laid
// over KFP's package (see overlay/importer.go).
func (r *running) importArtifact(arguments map[string]string, path string) (node, error) {
	task := r.at(path)
	task.Times++
	parent, err := strconv.ParseInt(arguments["parent-dag-id"], 10, 64)
	if err != nil {
		return node{}, err
	}
	importer, err := component.NewImporterOf(
		r.metadata, arguments["component"], arguments["importer"], arguments["task"],
		component.ImporterLauncherOptions{PipelineName: r.pipeline, RunID: r.id, ParentDagID: parent},
	)
	if err != nil {
		return node{}, err
	}
	if err := importer.Execute(context.Background()); err != nil {
		task.State, task.Error = componentBad, err.Error()
		return node{phase: failed}, nil
	}
	task.State = ran
	return node{phase: succeeded}, nil
}
