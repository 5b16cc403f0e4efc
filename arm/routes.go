package arm

import (
	"net/url"
	"strings"

	"tandem"
)

// A route is one thing that can be asked. In pattern, "{name}" is any segment; other segments match without case, as ARM
// demands.
type route struct {
	method  string
	pattern string
	serve   func(*Door, *request) error
	own     bool // Tandem's own: no api-version
	long    bool // a list without end in sight: longWithin instead of within
}

const (
	inSubscription = "subscriptions/{subscription}"
	inGroup        = inSubscription + "/resourceGroups/{group}"
	provider       = "/providers/Microsoft.Devices/"
	oneHub         = inGroup + provider + "IotHubs/{hub}"
)

// routes are all that is served.
var routes = []route{
	{method: "GET", pattern: "subscriptions", serve: (*Door).listSubscriptions},
	{method: "GET", pattern: inSubscription, serve: (*Door).getSubscription},
	{method: "HEAD", pattern: inGroup, serve: (*Door).headGroup},
	{method: "GET", pattern: inGroup, serve: (*Door).getGroup},
	{method: "PUT", pattern: inGroup, serve: (*Door).getGroup},
	{method: "GET", pattern: inSubscription + provider + "IotHubs", serve: (*Door).listHubs},
	{method: "POST", pattern: inSubscription + provider + "checkNameAvailability", serve: (*Door).checkName},
	{method: "GET", pattern: inSubscription + provider + "locations/{location}/operationResults/{operation}",
		serve: (*Door).operationResult},
	{method: "GET", pattern: inGroup + provider + "IotHubs", serve: (*Door).listHubs},
	{method: "GET", pattern: oneHub, serve: (*Door).getHub},
	{method: "PUT", pattern: oneHub, serve: (*Door).putHub},
	{method: "PATCH", pattern: oneHub, serve: (*Door).patchHub},
	{method: "DELETE", pattern: oneHub, serve: (*Door).deleteHub},
	{method: "POST", pattern: oneHub + "/listkeys", serve: (*Door).listKeys},
	{method: "POST", pattern: oneHub + "/IotHubKeys/{key}/listkeys", serve: (*Door).getKey},
	{method: "POST", pattern: oneHub + "/failover", serve: (*Door).azureFailover},
	{method: "GET", pattern: oneHub + "/IotHubStats", serve: (*Door).hubStats},
	{method: "GET", pattern: oneHub + "/quotaMetrics", serve: (*Door).quotaMetrics},
	{method: "GET", pattern: oneHub + "/skus", serve: (*Door).skus},

	{method: "GET", pattern: "tandem/regions", serve: (*Door).regions, own: true},
	{method: "GET", pattern: "tandem/hubs/{hub}/status", serve: (*Door).status, own: true},
	{method: "GET", pattern: "tandem/hubs/{hub}/forecast", serve: (*Door).forecast, own: true},
	{method: "POST", pattern: "tandem/hubs/{hub}/failover", serve: (*Door).failover, own: true},
	{method: "GET", pattern: "tandem/hubs/{hub}/receipts", serve: (*Door).receipts, own: true},
	{method: "GET", pattern: "tandem/operations", serve: (*Door).operations, own: true},
	{method: "GET", pattern: "tandem/operations/{operation}", serve: (*Door).operation, own: true},
	{method: "POST", pattern: "tandem/operations/{operation}/cancel", serve: (*Door).cancel, own: true},
	{method: "GET", pattern: "tandem/receipts/{receipt}", serve: (*Door).receipt, own: true},
	{method: "GET", pattern: "tandem/receipts/{receipt}/items", serve: (*Door).items, own: true, long: true},
	{method: "POST", pattern: "tandem/receipts/{receipt}/close", serve: (*Door).closeReceipt, own: true},
}

// notBuilt begin the parts of Azure's surface that Tandem does not serve, with what to call them.
var notBuilt = []struct{ pattern, name string }{
	{oneHub + "/certificates", "certificates of a hub"},
	{oneHub + "/eventHubEndpoints", "consumer groups"},
	{oneHub + "/routing", "message routing"},
	{oneHub + "/routingEndpointsHealth", "message routing"},
	{oneHub + "/exportDevices", "export to storage"},
	{oneHub + "/importDevices", "import from storage"},
	{oneHub + "/jobs", "jobs"},
	{oneHub + "/privateLinkResources", "private links"},
	{oneHub + "/privateEndpointConnections", "private links"},
	{inSubscription + provider + "usages", "usages"},
	{inGroup + "/providers/Microsoft.RecoveryServices", "recovery of virtual machines"},
	{inSubscription + "/providers/Microsoft.RecoveryServices", "recovery of virtual machines"},
}

// find returns the route of a request, with the names in its path, or why there is none.
func find(q *request) (*route, error) {
	path := strings.Split(strings.Trim(q.URL.EscapedPath(), "/"), "/")
	for i, part := range path {
		decoded, err := url.PathUnescape(part)
		if err != nil {
			return nil, invalid("the path is not percent-encoded as it should be")
		}
		path[i] = decoded
	}
	known := false
	for i := range routes {
		names, ok := match(routes[i].pattern, path)
		if ok && routes[i].method == q.Method {
			q.names = names
			return &routes[i], nil
		}
		known = known || ok
	}
	if known {
		return nil, errMethod
	}
	for _, missing := range notBuilt {
		if n := strings.Count(missing.pattern, "/") + 1; len(path) >= n {
			if _, ok := match(missing.pattern, path[:n]); ok {
				return nil, &tandem.Error{Op: "serve " + missing.name, Kind: tandem.Unsupported,
					Hint: "this version of Tandem does not have it yet"}
			}
		}
	}
	return nil, errNoResource
}

// match compares a path with a pattern and returns the segments that stand for names.
func match(pattern string, path []string) (map[string]string, bool) {
	names := map[string]string{}
	for _, part := range path {
		want, rest, more := strings.Cut(pattern, "/")
		name, isName := strings.CutPrefix(want, "{")
		switch {
		case want == "" || part == "":
			return nil, false
		case isName:
			names[strings.TrimSuffix(name, "}")] = part
		case !strings.EqualFold(want, part):
			return nil, false
		}
		pattern = ""
		if more {
			pattern = rest
		}
	}
	return names, pattern == ""
}
