package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	api "github.com/kubeflow/pipelines/backend/api/v1beta1/go_client"
	"github.com/kubeflow/pipelines/backend/src/v2/metadata"
	"github.com/kubeflow/pipelines/backend/src/v2/objectstore"
	pb "github.com/kubeflow/pipelines/third_party/ml-metadata/go/ml_metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	k8score "k8s.io/api/core/v1"
)

// launch stands in for a pod: what its launcher would be given is read from the patch of its specification, and what
// the launcher would publish is published.
func (r *running) launch(arguments map[string]string, path string) (node, error) {
	task := r.at(path)
	if arguments["cached-decision"] == "true" {
		task.State = cached
		return node{phase: succeeded}, nil
	}
	if named(r.asked.Lost, path) {
		task.State = lost
		return node{phase: failed}, nil
	}
	pod := &k8score.PodSpec{}
	if err := json.Unmarshal([]byte(arguments["pod-spec-patch"]), pod); err != nil {
		return node{}, fmt.Errorf("%s: the pod: %w", path, err)
	}
	flags := launcherFlags(pod)
	input, component := &pipelinespec.ExecutorInput{}, &pipelinespec.ComponentSpec{}
	if err := protojson.Unmarshal([]byte(flags["--executor_input"]), input); err != nil {
		return node{}, fmt.Errorf("%s: the executor's input: %w", path, err)
	}
	if err := protojson.Unmarshal([]byte(flags["--component_spec"]), component); err != nil {
		return node{}, fmt.Errorf("%s: the component: %w", path, err)
	}
	id, err := strconv.ParseInt(flags["--execution_id"], 10, 64)
	if err != nil {
		return node{}, fmt.Errorf("%s: the execution: %w", path, err)
	}
	if named(r.asked.Fail, path) {
		task.State = componentBad
		return node{phase: failed}, r.publish(id, input, component, nil, false)
	}
	var values map[string]any
	for name, given := range r.asked.Outputs {
		if named([]string{name}, path) {
			values = given
		}
	}
	task.State = ran
	return node{phase: succeeded}, r.publish(id, input, component, values, true)
}

// named says whether one of the names is that of the task at a path: the path, or the end of it.
func named(names []string, path string) bool {
	for _, name := range names {
		if path == name || strings.HasSuffix(path, "/"+name) {
			return true
		}
	}
	return false
}

func launcherFlags(pod *k8score.PodSpec) map[string]string {
	flags := map[string]string{}
	command := pod.Containers[0].Command
	for i := 0; i+1 < len(command); i++ {
		if len(command[i]) > 2 && command[i][:2] == "--" {
			flags[command[i]] = command[i+1]
		}
	}
	return flags
}

// publish records how a component ended in the way of LauncherV2.Execute (component/launcher_v2.go): artifacts and
// parameters, then the state of the group it is in, then, if it may be reused, an entry in the cache.
func (r *running) publish(
	id int64, input *pipelinespec.ExecutorInput, component *pipelinespec.ComponentSpec, values map[string]any, ok bool,
) error {
	ctx := context.Background()
	execution, err := r.metadata.GetExecution(ctx, id)
	if err != nil {
		return err
	}
	var artifacts []*metadata.OutputArtifact
	var parameters map[string]*structpb.Value
	state := pb.Execution_FAILED
	if ok {
		state = pb.Execution_COMPLETE
		if artifacts, err = r.record(input); err != nil {
			return err
		}
		if parameters, err = outputValues(component, values); err != nil {
			return err
		}
	}
	if err := r.metadata.PublishExecution(ctx, execution, parameters, artifacts, state); err != nil {
		return err
	}
	parent := execution.GetExecution().GetCustomProperties()["parent_dag_id"].GetIntValue()
	dag, err := r.metadata.GetDAG(ctx, parent)
	if err != nil {
		return err
	}
	if err := r.metadata.UpdateDAGExecutionsState(ctx, dag, execution.GetPipeline()); err != nil {
		return err
	}
	if !ok || execution.FingerPrint() == "" {
		return nil
	}
	return r.cache.CreateExecutionCache(ctx, &api.Task{
		PipelineName: "pipeline/" + r.pipeline, Namespace: namespace, RunId: r.id,
		MlmdExecutionID: strconv.FormatInt(id, 10), Fingerprint: execution.FingerPrint(),
	})
}

func (r *running) record(input *pipelinespec.ExecutorInput) ([]*metadata.OutputArtifact, error) {
	store := &objectstore.Config{SessionInfo: &objectstore.SessionInfo{Provider: "minio"}}
	var recorded []*metadata.OutputArtifact
	for name, list := range input.GetOutputs().GetArtifacts() {
		for _, artifact := range list.GetArtifacts() {
			title := artifact.GetType().GetSchemaTitle()
			schema := "title: " + title
			if title == "" {
				schema = artifact.GetType().GetInstanceSchema()
			}
			one, err := r.metadata.RecordArtifact(
				context.Background(), name, schema, artifact, pb.Artifact_LIVE, store,
			)
			if err != nil {
				return nil, err
			}
			recorded = append(recorded, one)
		}
	}
	return recorded, nil
}

func outputValues(component *pipelinespec.ComponentSpec, values map[string]any) (map[string]*structpb.Value, error) {
	filled := map[string]*structpb.Value{}
	for name, parameter := range component.GetOutputDefinitions().GetParameters() {
		value, given := values[name]
		if !given {
			value = map[pipelinespec.ParameterType_ParameterTypeEnum]any{
				pipelinespec.ParameterType_STRING:         "",
				pipelinespec.ParameterType_NUMBER_DOUBLE:  0.0,
				pipelinespec.ParameterType_NUMBER_INTEGER: 0.0,
				pipelinespec.ParameterType_BOOLEAN:        false,
				pipelinespec.ParameterType_LIST:           []any{},
				pipelinespec.ParameterType_STRUCT:         map[string]any{},
			}[parameter.GetParameterType()]
		}
		converted, err := structpb.NewValue(value)
		if err != nil {
			return nil, err
		}
		filled[name] = converted
	}
	for name := range values {
		if filled[name] == nil {
			return nil, fmt.Errorf("no output parameter %q; there are %v", name, keys(filled))
		}
	}
	return filled, nil
}

func keys[T any](all map[string]T) []string {
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	return names
}
