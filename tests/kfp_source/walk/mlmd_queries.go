package main

import (
	"context"
	"regexp"
	"strconv"

	pb "github.com/kubeflow/pipelines/third_party/ml-metadata/go/ml_metadata"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func (s *store) GetExecutionByTypeAndName(
	_ context.Context, r *pb.GetExecutionByTypeAndNameRequest,
) (*pb.GetExecutionByTypeAndNameResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.executionNamed(s.types["execution/"+r.GetTypeName()], r.GetExecutionName())
	return &pb.GetExecutionByTypeAndNameResponse{Execution: found}, nil
}

func (s *store) GetExecutionsByID(
	_ context.Context, r *pb.GetExecutionsByIDRequest,
) (*pb.GetExecutionsByIDResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.GetExecutionsByIDResponse{Executions: pick(s.executions, r.GetExecutionIds())}, nil
}

// The one filter that KFP's client writes.
var parentFilter = regexp.MustCompile(`^custom_properties\.parent_dag_id\.int_value = (\d+)$`)

func (s *store) GetExecutionsByContext(
	_ context.Context, r *pb.GetExecutionsByContextRequest,
) (*pb.GetExecutionsByContextResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	parent := int64(-1)
	if query := r.GetOptions().GetFilterQuery(); query != "" {
		match := parentFilter.FindStringSubmatch(query)
		if match == nil {
			return nil, status.Errorf(codes.Unimplemented, "filter %q", query)
		}
		parent, _ = strconv.ParseInt(match[1], 10, 64)
	}
	answer := &pb.GetExecutionsByContextResponse{}
	for id := int64(1); id <= s.lastID; id++ {
		execution := s.executions[id]
		if execution == nil || !contains(s.members[id], r.GetContextId()) {
			continue
		}
		if parent < 0 || execution.GetCustomProperties()["parent_dag_id"].GetIntValue() == parent {
			answer.Executions = append(answer.Executions, execution)
		}
	}
	return answer, nil
}

func (s *store) GetContextsByExecution(
	_ context.Context, r *pb.GetContextsByExecutionRequest,
) (*pb.GetContextsByExecutionResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.GetContextsByExecutionResponse{Contexts: pick(s.contexts, s.members[r.GetExecutionId()])}, nil
}

func (s *store) GetContextsByArtifact(
	_ context.Context, r *pb.GetContextsByArtifactRequest,
) (*pb.GetContextsByArtifactResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.GetContextsByArtifactResponse{Contexts: pick(s.contexts, s.members[r.GetArtifactId()])}, nil
}

func (s *store) GetEventsByExecutionIDs(
	_ context.Context, r *pb.GetEventsByExecutionIDsRequest,
) (*pb.GetEventsByExecutionIDsResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &pb.GetEventsByExecutionIDsResponse{}
	for _, event := range s.events {
		if contains(r.GetExecutionIds(), event.GetExecutionId()) {
			answer.Events = append(answer.Events, event)
		}
	}
	return answer, nil
}

func (s *store) GetArtifactsByID(
	_ context.Context, r *pb.GetArtifactsByIDRequest,
) (*pb.GetArtifactsByIDResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.GetArtifactsByIDResponse{Artifacts: pick(s.artifacts, r.GetArtifactIds())}, nil
}

func (s *store) PutArtifacts(_ context.Context, r *pb.PutArtifactsRequest) (*pb.PutArtifactsResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &pb.PutArtifactsResponse{}
	for _, given := range r.GetArtifacts() {
		answer.ArtifactIds = append(answer.ArtifactIds, s.putArtifact(given))
	}
	return answer, nil
}

func (s *store) GetArtifactsByURI(
	_ context.Context, r *pb.GetArtifactsByURIRequest,
) (*pb.GetArtifactsByURIResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &pb.GetArtifactsByURIResponse{}
	for id := int64(1); id <= s.lastID; id++ {
		artifact := s.artifacts[id]
		if artifact != nil && contains(r.GetUris(), artifact.GetUri()) {
			answer.Artifacts = append(answer.Artifacts, artifact)
		}
	}
	return answer, nil
}
