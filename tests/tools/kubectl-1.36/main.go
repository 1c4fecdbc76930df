// The kubectl of Kubernetes 1.36 for the end-to-end tests: upstream's own main, on the published Go module.
package main

import (
	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	"k8s.io/kubectl/pkg/cmd/util"
)

func main() {
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		// Prints the error and ends with its exit code.
		util.CheckErr(err)
	}
}
