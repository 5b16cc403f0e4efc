package https

import (
	"strings"

	"tandem"
	"tandem/gateway"
)

// A route is one thing that can be asked. In pattern, "{id}" is any segment; other segments match without case.
type route struct {
	method  string
	pattern string
	rights  gateway.Rights // of a policy's key; DeviceConnect lets in the device's own key too
	maxBody int64
	stream  bool // no deadline, and Tandem's own: no api-version
	serve   func(*Door, *request) error
}

// routes are all that is served, in the order of specs/wire-facts.md §4 and §5.
var routes = []route{
	{method: "POST", pattern: "devices/{id}/messages/events", rights: gateway.DeviceConnect, maxBody: maxBatchBody, serve: (*Door).send},
	{method: "GET", pattern: "devices", rights: gateway.RegistryRead, serve: (*Door).listDevices},
	{method: "POST", pattern: "devices", rights: gateway.RegistryWrite, maxBody: maxBulk, serve: (*Door).bulk},
	{method: "GET", pattern: "devices/{id}", rights: gateway.RegistryRead, serve: (*Door).getDevice},
	{method: "PUT", pattern: "devices/{id}", rights: gateway.RegistryWrite, maxBody: maxDevice, serve: (*Door).putDevice},
	{method: "DELETE", pattern: "devices/{id}", rights: gateway.RegistryWrite, serve: (*Door).deleteDevice},
	{method: "GET", pattern: "statistics/devices", rights: gateway.RegistryRead, serve: (*Door).deviceStatistics},
	{method: "GET", pattern: "tandem/hubs/{hub}/events", rights: gateway.ServiceConnect, stream: true, serve: (*Door).streamEvents},
}

// notBuilt are Azure's routes that Tandem does not serve, with what to call them. The first that begins the path counts.
var notBuilt = []struct{ pattern, name string }{
	{"devices/query", "querying twins"},
	{"devices/{id}/messages/devicebound", "receiving cloud-to-device messages over HTTPS"},
	{"devices/{id}/commands", "purging cloud-to-device messages"},
	{"devices/{id}/files", "file upload"},
	{"devices/{id}/modules", "modules"},
	{"devices/{id}/applyconfigurationcontent", "device configurations"},
	{"statistics/service", "the count of connected devices"},
	{"twins", "device twins and direct methods"},
	{"jobs", "jobs"},
	{"configurations", "device configurations"},
	{"digitaltwins", "digital twins"},
	{"messages", "cloud-to-device messages over HTTPS"},
	{"$iothub", "WebSockets at this door"},
	{"$servicebus", "WebSockets at this door"},
}

// find returns the route of a request, or why there is none.
func find(method string, path []string) (*route, error) {
	var allowed bool
	for _, missing := range notBuilt {
		if n := strings.Count(missing.pattern, "/") + 1; len(path) >= n && match(missing.pattern, path[:n]) {
			return nil, &tandem.Error{Op: "serve " + missing.name, Kind: tandem.Unsupported,
				Hint: "this version of Tandem does not have it yet"}
		}
	}
	for i := range routes {
		if match(routes[i].pattern, path) {
			if routes[i].method == method {
				return &routes[i], nil
			}
			allowed = true
		}
	}
	if allowed {
		return nil, errMethod
	}
	return nil, &tandem.Error{Op: "find the resource", Kind: tandem.NotFound}
}

func match(pattern string, path []string) bool {
	for _, part := range path {
		var want string
		var more bool
		want, pattern, more = strings.Cut(pattern, "/")
		if want == "" || want[0] != '{' && !strings.EqualFold(want, part) || want[0] == '{' && part == "" {
			return false
		}
		if !more {
			pattern = ""
		}
	}
	return pattern == ""
}
