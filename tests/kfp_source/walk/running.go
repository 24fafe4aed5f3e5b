package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	wfapi "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	api "github.com/kubeflow/pipelines/backend/api/v1beta1/go_client"
	"github.com/kubeflow/pipelines/backend/src/apiserver/template"
	"github.com/kubeflow/pipelines/backend/src/v2/cacheutils"
	"github.com/kubeflow/pipelines/backend/src/v2/driver"
	"github.com/kubeflow/pipelines/backend/src/v2/metadata"
	"github.com/kubeflow/pipelines/kubernetes_platform/go/kubernetesplatform"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const namespace = "kubeflow"

// cache is the API server's list of what was computed, by fingerprint; keys are KFP's own.
type cache struct {
	cacheutils.Client
	entries map[string]string
}

func (c *cache) GetExecutionCache(fingerPrint, pipelineName, namespace string) (string, error) {
	return c.entries[pipelineName+"|"+namespace+"|"+fingerPrint], nil
}

func (c *cache) CreateExecutionCache(_ context.Context, task *api.Task) error {
	c.entries[task.GetPipelineName()+"|"+task.GetNamespace()+"|"+task.GetFingerprint()] = task.GetMlmdExecutionID()
	return nil
}

// cluster is what outlives a run.
type cluster struct {
	store    *store
	metadata *metadata.Client
	cache    *cache
}

func newCluster() (*cluster, error) {
	held := newStore()
	client, err := held.serve()
	if err != nil {
		return nil, err
	}
	// It connects when it is first asked for an entry, which it never is.
	keys, err := cacheutils.NewClient("127.0.0.1", "9", false, nil)
	if err != nil {
		return nil, err
	}
	return &cluster{held, client, &cache{keys, map[string]string{}}}, nil
}

// What became of a task.
const (
	ran          = "ran"
	cached       = "cached"
	componentBad = "failed"
	lost         = "lost"
	driverBad    = "driver failed"
	group        = "group"
)

// told is what became of a task, and what its driver made of it.
type told struct {
	State         string          `json:"state"`
	Error         string          `json:"error,omitempty"`
	Metadata      string          `json:"metadata,omitempty"` // state that ML Metadata has in the end
	Component     json.RawMessage `json:"component,omitempty"`
	Container     json.RawMessage `json:"container,omitempty"`
	ExecutorInput json.RawMessage `json:"executor_input,omitempty"`
	PodSpec       json.RawMessage `json:"pod_spec,omitempty"`
	Fingerprint   string          `json:"fingerprint,omitempty"`
	Iterations    *int            `json:"iterations,omitempty"`
	Times         int             `json:"times,omitempty"` // how often its driver was started
	execution     int64
}

type ended struct {
	Problem string           `json:"problem,omitempty"` // of the API server, which made no workflow
	Phase   string           `json:"phase,omitempty"`
	Tasks   map[string]*told `json:"tasks,omitempty"`
}

// running is one run.
type running struct {
	*cluster
	id       string
	pipeline string
	asked    run
	tasks    map[string]*told
}

func (c *cluster) run(pipeline *template.V2Spec, id string, asked run) (*ended, error) {
	workflow, err := submit(pipeline, id, asked.Parameters)
	if err != nil {
		return &ended{Problem: err.Error()}, nil
	}
	held := &running{c, id, pipeline.PipelineSpec().GetPipelineInfo().GetName(), asked, map[string]*told{}}
	walk := &walker{workflow, map[string]*wfapi.Template{}, held}
	for i := range workflow.Spec.Templates {
		walk.templates[workflow.Spec.Templates[i].Name] = &workflow.Spec.Templates[i]
	}
	phase, err := walk.dag(walk.templates[workflow.Spec.Entrypoint], map[string]string{}, "")
	if err != nil {
		return nil, err
	}
	for _, task := range held.tasks {
		if task.execution != 0 {
			task.Metadata = c.store.stateOf(task.execution)
		}
	}
	return &ended{Phase: phase, Tasks: held.tasks}, nil
}

func (r *running) at(path string) *told {
	if r.tasks[path] == nil {
		r.tasks[path] = &told{}
	}
	return r.tasks[path]
}

// leaveOut notes a task that Argo didn't start. Its driver is part of it.
func (r *running) leaveOut(parent, name, phase string) {
	path := strings.TrimSuffix(below(parent, name, ""), "-driver")
	if task := r.at(path); task.State == "" || task.State == group {
		task.State = strings.ToLower(phase)
	}
}

func (r *running) fail(path, problem string) {
	if task := r.at(path); task.State == group {
		task.State, task.Error = componentBad, problem
	}
}

func (r *running) options(arguments map[string]string) (driver.Options, error) {
	var err error
	options := driver.Options{
		PipelineName: r.pipeline, RunID: r.id, RunName: "workflow-of-" + r.id, RunDisplayName: r.id,
		Namespace: namespace, IterationIndex: -1, PipelineLogLevel: "1", PublishLogs: "true",
		TaskName: arguments["task-name"], Component: &pipelinespec.ComponentSpec{},
		PipelineJobCreateTimeUTC: "2026-11-30T00:00:00Z", PipelineJobScheduleTimeUTC: "2026-11-30T00:00:00Z",
	}
	if err = addPlugins(&options); err != nil {
		return options, err
	}
	if err = protojson.Unmarshal([]byte(arguments["component"]), options.Component); err != nil {
		return options, err
	}
	if text := arguments["task"]; text != "" {
		options.Task = &pipelinespec.PipelineTaskSpec{}
		if err := protojson.Unmarshal([]byte(text), options.Task); err != nil {
			return options, err
		}
	}
	if text := arguments["parent-dag-id"]; text != "" {
		if options.DAGExecutionID, err = strconv.ParseInt(text, 10, 64); err != nil {
			return options, err
		}
	}
	if text := arguments["iteration-index"]; text != "" {
		if options.IterationIndex, err = strconv.Atoi(text); err != nil {
			return options, err
		}
	}
	return options, nil
}

// driveDAG is the driver of the whole pipeline, or of a group.
func (r *running) driveDAG(arguments map[string]string, path string) (node, error) {
	options, err := r.options(arguments)
	if err != nil {
		return node{}, err
	}
	options.DriverType = arguments["driver-type"]
	var execution *driver.Execution
	if options.DriverType == "ROOT_DAG" {
		options.RuntimeConfig = &pipelinespec.PipelineJob_RuntimeConfig{}
		if err := protojson.Unmarshal([]byte(arguments["runtime-config"]), options.RuntimeConfig); err != nil {
			return node{}, err
		}
		execution, err = driver.RootDAG(context.Background(), options, r.metadata)
	} else {
		execution, err = driver.DAG(context.Background(), options, r.metadata)
	}
	task := r.at(path)
	task.Times++
	if err != nil {
		task.State, task.Error = driverBad, err.Error()
		return node{phase: failed}, nil
	}
	task.State, task.execution, task.Iterations = group, execution.ID, execution.IterationCount
	outputs := map[string]string{
		"execution-id": strconv.FormatInt(execution.ID, 10), "iteration-count": "0", "condition": "nil",
	}
	if execution.IterationCount != nil {
		outputs["iteration-count"] = strconv.Itoa(*execution.IterationCount)
	}
	if execution.Condition != nil {
		outputs["condition"] = strconv.FormatBool(*execution.Condition)
	}
	return node{succeeded, outputs}, setJSON(&task.ExecutorInput, execution.ExecutorInput)
}

func (r *running) driveContainer(arguments map[string]string, path string) (node, error) {
	options, err := r.options(arguments)
	if err != nil {
		return node{}, err
	}
	options.DriverType = "CONTAINER"
	options.Container = &pipelinespec.PipelineDeploymentConfig_PipelineContainerSpec{}
	if err := protojson.Unmarshal([]byte(arguments["container"]), options.Container); err != nil {
		return node{}, err
	}
	if text := arguments["kubernetes-config"]; text != "" {
		options.KubernetesExecutorConfig = &kubernetesplatform.KubernetesExecutorConfig{}
		if err := protojson.Unmarshal([]byte(text), options.KubernetesExecutorConfig); err != nil {
			return node{}, err
		}
	}
	task := r.at(path)
	task.Times++
	if err := setJSON(&task.Component, options.Component); err != nil {
		return node{}, err
	}
	if err := setJSON(&task.Container, options.Container); err != nil {
		return node{}, err
	}
	execution, err := driver.Container(context.Background(), options, r.metadata, r.cache)
	if err != nil {
		task.State, task.Error = driverBad, err.Error()
		return node{phase: failed}, nil
	}
	task.execution = execution.ID
	if execution.PodSpecPatch != "" {
		task.PodSpec = json.RawMessage(execution.PodSpecPatch)
	}
	outputs := map[string]string{
		"pod-spec-patch": execution.PodSpecPatch, "cached-decision": "false", "condition": "nil",
	}
	if execution.Cached != nil {
		outputs["cached-decision"] = strconv.FormatBool(*execution.Cached)
	}
	if execution.Condition != nil {
		outputs["condition"] = strconv.FormatBool(*execution.Condition)
	}
	known, err := r.metadata.GetExecution(context.Background(), execution.ID)
	if err != nil {
		return node{}, err
	}
	task.Fingerprint = known.FingerPrint()
	return node{succeeded, outputs}, setJSON(&task.ExecutorInput, execution.ExecutorInput)
}

func setJSON(target *json.RawMessage, message proto.Message) error {
	text, err := protojson.Marshal(message)
	if err != nil {
		return fmt.Errorf("writing %T: %w", message, err)
	}
	*target = text
	return nil
}
