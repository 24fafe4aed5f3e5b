package main

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/kubeflow/pipelines/backend/src/v2/metadata"
	pb "github.com/kubeflow/pipelines/third_party/ml-metadata/go/ml_metadata"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// store is ML Metadata in memory, as far as the driver, the importer and the launcher use it. A method that it lacks
// answers Unimplemented, which fails the walk.
type store struct {
	pb.UnimplementedMetadataStoreServiceServer
	mutex      sync.Mutex
	lastID     int64
	types      map[string]int64 // by "execution/<name>", "artifact/<name>", "context/<name>"
	typeNames  map[int64]string
	contexts   map[int64]*pb.Context
	parents    map[int64]int64
	executions map[int64]*pb.Execution
	artifacts  map[int64]*pb.Artifact
	events     []*pb.Event
	// Contexts of executions and of artifacts, which share no id.
	members map[int64][]int64
}

func newStore() *store {
	return &store{
		types: map[string]int64{}, typeNames: map[int64]string{}, contexts: map[int64]*pb.Context{},
		parents: map[int64]int64{}, executions: map[int64]*pb.Execution{}, artifacts: map[int64]*pb.Artifact{},
		members: map[int64][]int64{},
	}
}

// serve answers on loopback and returns KFP's client of it.
func (s *store) serve() (*metadata.Client, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	pb.RegisterMetadataStoreServiceServer(server, s)
	go func() { _ = server.Serve(listener) }()
	host, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		return nil, err
	}
	return metadata.NewClient(host, port, nil)
}

func (s *store) next() int64 {
	s.lastID++
	return s.lastID
}

func (s *store) typeID(kind, name string) int64 {
	key := kind + "/" + name
	if s.types[key] == 0 {
		s.types[key] = s.next()
		s.typeNames[s.types[key]] = name
	}
	return s.types[key]
}

func (s *store) PutContextType(_ context.Context, r *pb.PutContextTypeRequest) (*pb.PutContextTypeResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.PutContextTypeResponse{TypeId: proto.Int64(s.typeID("context", r.GetContextType().GetName()))}, nil
}

func (s *store) GetContextType(_ context.Context, r *pb.GetContextTypeRequest) (*pb.GetContextTypeResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	id := s.types["context/"+r.GetTypeName()]
	if id == 0 {
		return nil, status.Errorf(codes.NotFound, "no context type %q", r.GetTypeName())
	}
	return &pb.GetContextTypeResponse{ContextType: &pb.ContextType{Id: &id, Name: r.TypeName}}, nil
}

func (s *store) PutExecutionType(
	_ context.Context, r *pb.PutExecutionTypeRequest,
) (*pb.PutExecutionTypeResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.PutExecutionTypeResponse{TypeId: proto.Int64(s.typeID("execution", r.GetExecutionType().GetName()))}, nil
}

func (s *store) PutArtifactType(_ context.Context, r *pb.PutArtifactTypeRequest) (*pb.PutArtifactTypeResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.PutArtifactTypeResponse{TypeId: proto.Int64(s.typeID("artifact", r.GetArtifactType().GetName()))}, nil
}

func (s *store) GetArtifactType(_ context.Context, r *pb.GetArtifactTypeRequest) (*pb.GetArtifactTypeResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	id := s.types["artifact/"+r.GetTypeName()]
	if id == 0 {
		return nil, status.Errorf(codes.NotFound, "no artifact type %q", r.GetTypeName())
	}
	return &pb.GetArtifactTypeResponse{ArtifactType: &pb.ArtifactType{Id: &id, Name: r.TypeName}}, nil
}

func (s *store) contextNamed(typeID int64, name string) *pb.Context {
	for _, known := range s.contexts {
		if known.GetTypeId() == typeID && known.GetName() == name {
			return known
		}
	}
	return nil
}

func (s *store) PutContexts(_ context.Context, r *pb.PutContextsRequest) (*pb.PutContextsResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &pb.PutContextsResponse{}
	for _, given := range r.GetContexts() {
		if s.contextNamed(given.GetTypeId(), given.GetName()) != nil {
			return nil, status.Errorf(codes.AlreadyExists, "context %q exists", given.GetName())
		}
		given.Id = proto.Int64(s.next())
		s.contexts[given.GetId()] = given
		answer.ContextIds = append(answer.ContextIds, given.GetId())
	}
	return answer, nil
}

func (s *store) GetContextByTypeAndName(
	_ context.Context, r *pb.GetContextByTypeAndNameRequest,
) (*pb.GetContextByTypeAndNameResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	found := s.contextNamed(s.types["context/"+r.GetTypeName()], r.GetContextName())
	return &pb.GetContextByTypeAndNameResponse{Context: found}, nil
}

func (s *store) GetContextsByID(_ context.Context, r *pb.GetContextsByIDRequest) (*pb.GetContextsByIDResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return &pb.GetContextsByIDResponse{Contexts: pick(s.contexts, r.GetContextIds())}, nil
}

func (s *store) PutParentContexts(
	_ context.Context, r *pb.PutParentContextsRequest,
) (*pb.PutParentContextsResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, pair := range r.GetParentContexts() {
		s.parents[pair.GetChildId()] = pair.GetParentId()
	}
	return &pb.PutParentContextsResponse{}, nil
}

func (s *store) GetParentContextsByContext(
	_ context.Context, r *pb.GetParentContextsByContextRequest,
) (*pb.GetParentContextsByContextResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	answer := &pb.GetParentContextsByContextResponse{}
	if parent := s.parents[r.GetContextId()]; parent != 0 {
		answer.Contexts = []*pb.Context{s.contexts[parent]}
	}
	return answer, nil
}

func (s *store) join(member, group int64) {
	for _, known := range s.members[member] {
		if known == group {
			return
		}
	}
	s.members[member] = append(s.members[member], group)
}

func (s *store) putArtifact(given *pb.Artifact) int64 {
	if given.GetId() == 0 {
		given.Id = proto.Int64(s.next())
	}
	given.Type = proto.String(s.typeNames[given.GetTypeId()])
	s.artifacts[given.GetId()] = given
	return given.GetId()
}

func (s *store) PutExecution(_ context.Context, r *pb.PutExecutionRequest) (*pb.PutExecutionResponse, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	execution := r.GetExecution()
	if execution.GetId() == 0 {
		if name := execution.GetName(); name != "" && s.executionNamed(execution.GetTypeId(), name) != nil {
			return nil, status.Errorf(codes.AlreadyExists, "execution %q exists", name)
		}
		execution.Id = proto.Int64(s.next())
	} else if s.executions[execution.GetId()] == nil {
		return nil, status.Errorf(codes.NotFound, "no execution %d", execution.GetId())
	}
	execution.Type = proto.String(s.typeNames[execution.GetTypeId()])
	s.executions[execution.GetId()] = execution
	answer := &pb.PutExecutionResponse{ExecutionId: execution.Id}
	for _, pair := range r.GetArtifactEventPairs() {
		id := pair.GetEvent().GetArtifactId()
		if pair.GetArtifact() != nil {
			id = s.putArtifact(pair.GetArtifact())
		}
		if s.artifacts[id] == nil {
			return nil, status.Errorf(codes.NotFound, "no artifact %d", id)
		}
		event := pair.GetEvent()
		event.ArtifactId, event.ExecutionId = &id, execution.Id
		s.events = append(s.events, event)
		answer.ArtifactIds = append(answer.ArtifactIds, id)
	}
	for _, group := range r.GetContexts() {
		s.join(execution.GetId(), group.GetId())
		for _, id := range answer.ArtifactIds {
			s.join(id, group.GetId())
		}
		answer.ContextIds = append(answer.ContextIds, group.GetId())
	}
	return answer, nil
}

func (s *store) executionNamed(typeID int64, name string) *pb.Execution {
	for _, known := range s.executions {
		if known.GetTypeId() == typeID && known.GetName() == name {
			return known
		}
	}
	return nil
}

// stateOf returns what ML Metadata last knew of an execution, such as "COMPLETE".
func (s *store) stateOf(id int64) string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	execution := s.executions[id]
	if execution == nil {
		return fmt.Sprintf("no execution %d", id)
	}
	return execution.GetLastKnownState().String()
}

func pick[T any](all map[int64]*T, ids []int64) []*T {
	found := []*T{}
	for _, id := range ids {
		if item := all[id]; item != nil {
			found = append(found, item)
		}
	}
	return found
}

func contains[T comparable](all []T, one T) bool {
	for _, item := range all {
		if item == one {
			return true
		}
	}
	return false
}
