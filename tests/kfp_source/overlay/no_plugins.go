package main

import "github.com/kubeflow/pipelines/backend/src/v2/driver"

// addPlugins does nothing: KFP 2.16 has no plugins.
func addPlugins(_ *driver.Options) error { return nil }
