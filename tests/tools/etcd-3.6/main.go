// The etcd of the 3.6 releases for the tests of the store: upstream's own main, on the published Go module.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
