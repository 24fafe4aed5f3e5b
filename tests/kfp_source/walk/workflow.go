package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	wfapi "github.com/argoproj/argo-workflows/v4/pkg/apis/workflow/v1alpha1"
	"github.com/kubeflow/pipelines/api/v2alpha1/go/pipelinespec"
	"github.com/kubeflow/pipelines/backend/src/apiserver/model"
	"github.com/kubeflow/pipelines/backend/src/apiserver/template"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"
)

// parse reads a compiled pipeline with the API server's strict parser. That parser leaves out a document that it can't
// read as settings for Kubernetes, and says nothing: a pipeline with a field that is too new for it would run without
// its Secrets, its nodes and its deadlines. Here it is an error.
func parse(path string) (*template.V2Spec, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	spec, err := template.NewV2SpecTemplate(content, template.TemplateOptions{})
	if err != nil || spec.PlatformSpec() != nil {
		return spec, err
	}
	for _, document := range strings.Split(string(content), "\n---\n") {
		if !strings.HasPrefix(document, "platforms:") {
			continue
		}
		text, err := yaml.YAMLToJSON([]byte(document))
		if err != nil {
			return nil, err
		}
		err = protojson.Unmarshal(text, &pipelinespec.PlatformSpec{})
		return nil, fmt.Errorf("the API server leaves the settings for Kubernetes out: %w", err)
	}
	return spec, nil
}

// submit makes the workflow of a run, checking its parameters as the API server does.
func submit(pipeline *template.V2Spec, runID string, parameters map[string]any) (*wfapi.Workflow, error) {
	if parameters == nil {
		parameters = map[string]any{}
	}
	text, err := json.Marshal(parameters)
	if err != nil {
		return nil, err
	}
	row := &model.Run{
		DisplayName: runID, Namespace: namespace,
		PipelineSpec: model.PipelineSpec{RuntimeConfig: model.RuntimeConfig{Parameters: model.LargeText(text)}},
	}
	execution, err := pipeline.RunWorkflow(row, template.RunWorkflowOptions{RunID: runID})
	if err != nil {
		return nil, err
	}
	workflow := &wfapi.Workflow{}
	return workflow, json.Unmarshal([]byte(execution.ToStringForStore()), workflow)
}

// Phases of Argo's nodes.
const (
	succeeded = "Succeeded"
	failed    = "Failed"
	skipped   = "Skipped"
	omitted   = "Omitted"
)

// node is a task of a workflow that was looked at: its phase and its output parameters.
type node struct {
	phase   string
	outputs map[string]string
}

// walker goes through one workflow in the order of its dependencies.
type walker struct {
	workflow  *wfapi.Workflow
	templates map[string]*wfapi.Template
	run       *running
}

// dag goes through a DAG template: Argo starts a task when its `depends` holds, omits it when it can't any more, and
// skips it when `when` is false. A task's exit hook runs when the task has run, well or not; never when it was skipped
// or omitted (argo-workflows 4.0.5, workflow/controller/dag.go, executeDAGTask).
func (w *walker) dag(tmpl *wfapi.Template, inputs map[string]string, path string) (string, error) {
	nodes := map[string]node{}
	phase := succeeded
	for len(nodes) < len(tmpl.DAG.Tasks) {
		before := len(nodes)
		for i := range tmpl.DAG.Tasks {
			task := &tmpl.DAG.Tasks[i]
			if _, done := nodes[task.Name]; done {
				continue
			}
			ready, holds, err := depends(task.Depends, nodes)
			if err != nil {
				return "", fmt.Errorf("%s/%s: %w", path, task.Name, err)
			}
			if !ready {
				continue
			}
			one := node{phase: omitted}
			if holds {
				if one, err = w.task(task, inputs, nodes, path); err != nil {
					return "", err
				}
			} else {
				w.run.leaveOut(path, task.Name, omitted)
			}
			nodes[task.Name] = one
			if one.phase == failed {
				phase = failed
			}
		}
		if len(nodes) == before {
			return "", fmt.Errorf("%s: tasks that wait for each other, or for one that isn't there", path)
		}
	}
	return phase, nil
}

// depends says whether all that a task waits for has ended, and whether it ended as asked. KFP's compiler writes
// "a.Succeeded && b.Succeeded" and nothing else.
func depends(expression string, nodes map[string]node) (ready, holds bool, err error) {
	if expression == "" {
		return true, true, nil
	}
	holds = true
	for _, term := range strings.Split(expression, " && ") {
		name, found := strings.CutSuffix(term, ".Succeeded")
		if !found {
			return false, false, fmt.Errorf("a dependency that this walk doesn't know: %q", expression)
		}
		one, ended := nodes[name]
		if !ended {
			return false, false, nil
		}
		holds = holds && one.phase == succeeded
	}
	return true, holds, nil
}

func (w *walker) task(
	task *wfapi.DAGTask, inputs map[string]string, nodes map[string]node, path string,
) (node, error) {
	if task.WithSequence != nil {
		return w.sequence(task, inputs, nodes, path)
	}
	return w.item(task, inputs, nodes, path, "")
}

func (w *walker) sequence(
	task *wfapi.DAGTask, inputs map[string]string, nodes map[string]node, path string,
) (node, error) {
	text, err := w.fill(task.WithSequence.Count.String(), inputs, nodes, "")
	if err != nil {
		return node{}, err
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		return node{}, fmt.Errorf("%s/%s: %q is no number of iterations", path, task.Name, text)
	}
	whole := node{phase: succeeded}
	for index := range count {
		one, err := w.item(task, inputs, nodes, path, strconv.Itoa(index))
		if err != nil {
			return node{}, err
		}
		if one.phase == failed {
			whole.phase = failed
		}
	}
	return whole, nil
}

func (w *walker) item(
	task *wfapi.DAGTask, inputs map[string]string, nodes map[string]node, path, item string,
) (node, error) {
	when, err := w.fill(task.When, inputs, nodes, item)
	if err != nil {
		return node{}, err
	}
	if when != "" {
		holds, err := compare(when)
		if err != nil {
			return node{}, fmt.Errorf("%s/%s: %w", path, task.Name, err)
		}
		if !holds {
			w.run.leaveOut(path, task.Name, skipped)
			return node{phase: skipped}, nil
		}
	}
	arguments := map[string]string{}
	tmpl := w.templates[task.Template]
	if tmpl == nil {
		return node{}, fmt.Errorf("%s/%s: no template %q", path, task.Name, task.Template)
	}
	for _, parameter := range tmpl.Inputs.Parameters {
		if parameter.Default != nil {
			arguments[parameter.Name] = parameter.Default.String()
		}
	}
	for _, parameter := range task.Arguments.Parameters {
		if arguments[parameter.Name], err = w.fill(parameter.Value.String(), inputs, nodes, item); err != nil {
			return node{}, fmt.Errorf("%s/%s: %w", path, task.Name, err)
		}
	}
	one, err := w.execute(task, tmpl, arguments, below(path, task.Name, item))
	if err != nil {
		return node{}, err
	}
	if hook, found := task.Hooks[wfapi.ExitLifecycleEvent]; found {
		return one, w.hook(&hook, inputs, nodes, path)
	}
	return one, nil
}

// hook runs a task's exit hook. How it ends changes nothing for the task.
func (w *walker) hook(
	hook *wfapi.LifecycleHook, inputs map[string]string, nodes map[string]node, path string,
) error {
	arguments := map[string]string{}
	for _, parameter := range hook.Arguments.Parameters {
		value, err := w.fill(parameter.Value.String(), inputs, nodes, "")
		if err != nil {
			return err
		}
		arguments[parameter.Name] = value
	}
	_, err := w.dag(w.templates[hook.Template], arguments, path)
	return err
}

// execute runs a template. What is no DAG is one of the templates that every workflow of KFP has.
func (w *walker) execute(
	task *wfapi.DAGTask, tmpl *wfapi.Template, arguments map[string]string, path string,
) (node, error) {
	switch {
	case tmpl.Name == "system-dag-driver":
		return w.run.driveDAG(arguments, strings.TrimSuffix(path, "-driver"))
	case tmpl.Name == "system-container-driver":
		return w.run.driveContainer(arguments, strings.TrimSuffix(path, "-driver"))
	case strings.HasSuffix(tmpl.Name, "system-container-executor"):
		return w.run.launch(arguments, path)
	case tmpl.Name == "system-importer":
		return w.run.importArtifact(arguments, path)
	case tmpl.DAG == nil:
		return node{}, fmt.Errorf("%s: a template that this walk doesn't know: %q", path, tmpl.Name)
	}
	phase, err := w.dag(tmpl, arguments, path)
	if phase == failed {
		w.run.fail(path, "")
	}
	return node{phase: phase}, err
}

// below returns a task's path in terms of the pipeline: the templates that Argo needs for a loop are left out.
func below(path, name, item string) string {
	switch {
	case name == "iteration" || name == "iteration-driver" || name == "root" || name == "root-driver":
		return path
	case name == "iteration-iterations":
		return path + "[" + item + "]"
	case name == "iteration-item" || name == "iteration-item-driver":
		return path
	case path == "":
		return name
	}
	return path + "/" + name
}

var placeholder = regexp.MustCompile(`\{\{([^{}]+)\}\}`)

// fill replaces Argo's placeholders. KFP's own, {{$...}}, stay for the driver and the launcher.
func (w *walker) fill(text string, inputs map[string]string, nodes map[string]node, item string) (string, error) {
	var problem error
	filled := placeholder.ReplaceAllStringFunc(text, func(whole string) string {
		name := strings.TrimSpace(whole[2 : len(whole)-2])
		if strings.HasPrefix(name, "$") {
			return whole
		}
		value, found := w.value(name, inputs, nodes, item)
		if !found {
			problem = fmt.Errorf("nothing for %s", whole)
		}
		return value
	})
	return filled, problem
}

func (w *walker) value(name string, inputs map[string]string, nodes map[string]node, item string) (string, bool) {
	parts := strings.Split(name, ".")
	switch {
	case name == "item":
		return item, item != ""
	case strings.HasPrefix(name, "inputs.parameters."):
		value, found := inputs[strings.TrimPrefix(name, "inputs.parameters.")]
		return value, found
	case strings.HasPrefix(name, "workflow.parameters."):
		parameter := w.workflow.Spec.Arguments.GetParameterByName(strings.TrimPrefix(name, "workflow.parameters."))
		if parameter == nil || parameter.Value == nil {
			return "", false
		}
		return parameter.Value.String(), true
	case len(parts) == 5 && parts[0] == "tasks" && parts[2] == "outputs":
		value, found := nodes[parts[1]].outputs[parts[4]]
		return value, found
	}
	return "", false
}

// compare evaluates "a != b", the one condition that KFP's compiler writes.
func compare(expression string) (bool, error) {
	left, right, found := strings.Cut(expression, " != ")
	if !found || strings.ContainsAny(right, " =!&|") {
		return false, fmt.Errorf("a condition that this walk doesn't know: %q", expression)
	}
	return strings.TrimSpace(left) != strings.TrimSpace(right), nil
}
