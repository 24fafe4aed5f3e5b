// Command walk takes a compiled pipeline through the code of Kubeflow Pipelines as far as it goes without a cluster.
//
// The API server's own parser reads the file and makes a workflow of it; KFP's driver resolves the inputs of every
// task, in the order in which Argo would start them; ML Metadata is held in memory. In place of a component, its
// outputs are published as the launcher publishes them. It is built inside a checkout of kubeflow/pipelines, by an
// overlay (see build.py), because the packages it uses are part of that module.
//
// It reads a request in JSON from stdin and writes the answer in JSON to stdout.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"github.com/kubeflow/pipelines/backend/src/apiserver/config/proxy"
)

// request is a pipeline and its runs, which share the metadata and the cache, one after the other.
type request struct {
	Pipeline string `json:"pipeline"` // path of the compiled YAML
	Runs     []run  `json:"runs"`
}

// run is what a run is given and what its components do.
type run struct {
	Parameters map[string]any `json:"parameters"`
	// Output parameters of components, by the task; what isn't named is "", 0, false, [] or {}. A task is named by its
	// path, "exit-handler-1/for-loop-2[0]/predict", or by the end of it, "predict".
	Outputs map[string]map[string]any `json:"outputs"`
	// Tasks whose component fails.
	Fail []string `json:"fail"`
	// Tasks whose pod is lost: nobody publishes how they ended.
	Lost []string `json:"lost"`
}

type answer struct {
	Problem string   `json:"problem,omitempty"` // of the parser
	Runs    []*ended `json:"runs,omitempty"`
}

func main() {
	if err := flag.Set("stderrthreshold", "FATAL"); err != nil {
		panic(err)
	}
	flag.Parse()
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func work() error {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return fmt.Errorf("reading the request: %w", err)
	}
	proxy.InitializeConfigWithEmptyForTests()
	stop, err := emptyCluster()
	if err != nil {
		return err
	}
	defer stop()
	told := answer{}
	pipeline, err := parse(asked.Pipeline)
	if err != nil {
		told.Problem = err.Error()
		return json.NewEncoder(os.Stdout).Encode(told)
	}
	cluster, err := newCluster()
	if err != nil {
		return err
	}
	for number, one := range asked.Runs {
		result, err := cluster.run(pipeline, fmt.Sprintf("run-%d", number), one)
		if err != nil {
			return fmt.Errorf("run %d: %w", number, err)
		}
		told.Runs = append(told.Runs, result)
	}
	return json.NewEncoder(os.Stdout).Encode(told)
}

// emptyCluster serves a Kubernetes API that holds nothing: the driver of the root asks it for a ConfigMap, which is
// optional.
func emptyCluster() (func(), error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}`)
	}))
	folder, err := os.MkdirTemp("", "walk")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(folder, "kubeconfig")
	config := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "one",
"clusters": [{"name": "one", "cluster": {"server": %q}}], "users": [{"name": "one", "user": {}}],
"contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}]}`, server.URL)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	stop := func() { server.Close(); os.RemoveAll(folder) }
	return stop, os.Setenv("KUBECONFIG", path)
}
