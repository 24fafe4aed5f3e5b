package main

import (
	"github.com/kubeflow/pipelines/backend/src/v2/common/plugins"
	"github.com/kubeflow/pipelines/backend/src/v2/driver"
)

// addPlugins gives the driver what it calls around each task, which is nothing unless an administrator asks for it.
func addPlugins(options *driver.Options) (err error) {
	options.PluginDispatcher, err = plugins.GetPluginDispatcher()
	return err
}
