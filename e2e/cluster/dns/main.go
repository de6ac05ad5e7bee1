// Command coredns is CoreDNS with only the plugins that Stockade's test cluster needs: names of
// Services, and an honest refusal for everything else, because the cluster has no way out.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which plugins see a query. CoreDNS ignores directives that are not listed here.
var directives = []string{"bind", "health", "ready", "errors", "kubernetes", "template"}

func main() {
	dnsserver.Directives = directives
	coremain.Run()
}
