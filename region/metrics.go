package region

import (
	"context"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"tandem"
	"tandem/gateway"
	"tandem/gateway/mqtt"
	"tandem/hub"
)

// metrics are what /metrics shows: read from the parts when asked, so that nothing is counted on a hot path twice.
type metrics struct {
	n        *node
	registry *prometheus.Registry
	notices  *prometheus.CounterVec
	panics   prometheus.Counter
	mqtt     atomic.Pointer[mqtt.Server]
	gate     atomic.Pointer[gateway.Gate]
}

var (
	hubLabels = []string{"hub"}

	descRole      = prometheus.NewDesc("tandem_hub_role", "1 for the role this region has for the hub.", []string{"hub", "role"}, nil)
	descEpoch     = prometheus.NewDesc("tandem_hub_epoch", "Epoch of the newest pen known here.", hubLabels, nil)
	descRecord    = prometheus.NewDesc("tandem_hub_log_records", "Number of the last durable record here.", hubLabels, nil)
	descLagItems  = prometheus.NewDesc("tandem_hub_lag_items", "Entries that the holder has and this region's copy has not.", hubLabels, nil)
	descLagBytes  = prometheus.NewDesc("tandem_hub_lag_bytes", "Bytes that the holder has and this region's copy has not.", hubLabels, nil)
	descLagTime   = prometheus.NewDesc("tandem_hub_lag_seconds", "Age of what this region's copy lacks.", hubLabels, nil)
	descDevices   = prometheus.NewDesc("tandem_hub_devices", "Device identities.", []string{"hub", "status"}, nil)
	descSessions  = prometheus.NewDesc("tandem_hub_sessions", "Devices connected to this node.", hubLabels, nil)
	descOpen      = prometheus.NewDesc("tandem_mqtt_connections", "MQTT sessions open.", nil, nil)
	descMessages  = prometheus.NewDesc("tandem_mqtt_messages_total", "Telemetry messages taken in over MQTT.", nil, nil)
	descAcked     = prometheus.NewDesc("tandem_mqtt_acknowledged_total", "Telemetry messages acknowledged over MQTT.", nil, nil)
	descRefused   = prometheus.NewDesc("tandem_mqtt_refused_total", "MQTT connections that ended before they were admitted.", nil, nil)
	descLease     = prometheus.NewDesc("tandem_lease_valid", "1 while this node's lease holds.", nil, nil)
	descLinkUp    = prometheus.NewDesc("tandem_link_up", "1 while the peer region's end of the link answers.", nil, nil)
	descHandshake = prometheus.NewDesc("tandem_gate_refused_total", "Connections closed because too many handshakes were under way.", nil, nil)
	descDisk      = prometheus.NewDesc("tandem_log_free_bytes", "Room left for the log.", nil, nil)
)

func newMetrics(n *node) *metrics {
	m := &metrics{n: n, registry: prometheus.NewRegistry()}
	m.notices = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "tandem_notices_total", Help: "Notices by name: pen opened, pen put down, in-sync set changed and others.",
	}, []string{"notice"})
	m.panics = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "tandem_connection_faults_total", Help: "Connections ended by a fault of this program; the log has each trace.",
	})
	m.registry.MustRegister(m, m.notices, m.panics, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) hear(event tandem.Notice) { m.notices.WithLabelValues(event.NoticeName()).Inc() }

func (m *metrics) gateways(s *mqtt.Server, g *gateway.Gate) {
	m.mqtt.Store(s)
	m.gate.Store(g)
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v))
	}
	if s := m.mqtt.Load(); s != nil {
		stats := s.Stats()
		gauge(descOpen, float64(stats.Open))
		counter(descMessages, stats.Messages)
		counter(descAcked, stats.Acknowledged)
		counter(descRefused, stats.Refused)
		counter(descHandshake, m.gate.Load().Refused())
	}
	if !m.n.opened.Load() {
		return
	}
	gauge(descLease, number(m.n.lease.Term().Valid()))
	gauge(descLinkUp, number(m.n.engine.Link().Up()))
	gauge(descDisk, float64(m.n.engine.Store().Space().Free))
	for _, h := range m.n.catalog.Hubs() {
		r, ok := m.n.replicas.find(h.ID)
		if !ok {
			continue
		}
		f, name := r.Facts(), string(h.Name)
		for _, role := range []hub.Role{hub.RoleHolder, hub.RoleFollower, hub.RoleClosed, hub.RoleFenced} {
			gauge(descRole, number(f.Role == role), name, string(role))
		}
		gauge(descEpoch, float64(f.Epoch), name)
		gauge(descRecord, float64(f.End.Number), name)
		gauge(descLagItems, float64(f.Lag.Items), name)
		gauge(descLagBytes, float64(f.Lag.Bytes), name)
		gauge(descLagTime, f.Lag.Age.Seconds(), name)
		gauge(descSessions, float64(f.Sessions), name)
		gauge(descDevices, float64(f.Statistics.Enabled), name, "enabled")
		gauge(descDevices, float64(f.Statistics.Disabled), name, "disabled")
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// serveMetrics answers /metrics, /healthz (the process lives) and /readyz (its doors answer: clients may come).
func (n *node) serveMetrics(ctx context.Context, l net.Listener) error {
	if l == nil {
		<-ctx.Done()
		return nil
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(n.metrics.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if why := n.notReady(); why != "" {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
	if address, ok := l.Addr().(*net.TCPAddr); ok && address.IP.IsLoopback() { // profiles show addresses and names: for this machine only
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return serveHTTP(ctx, &http.Server{Handler: mux, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute}, l, nil)
}

// notReady says why a client should go elsewhere; empty when it need not. One hub that is not served does not make a
// region that serves others unready: who asks for it is told to try again.
func (n *node) notReady() string {
	switch why, _ := n.waiting.Load().(string); {
	case !n.opened.Load():
		return why
	case !n.serving.Load():
		return "starting"
	case !n.lease.Term().Valid():
		return "no lease: the directory has no majority here, or the log takes no writes"
	case !n.replicas.reviewed.Load():
		return "opening the hubs"
	}
	var not []string
	hubs := n.hubs()
	for _, h := range hubs {
		if r, ok := n.replicas.find(h.ID); !ok {
			not = append(not, "hub "+string(h.Name)+" is not open")
		} else if role := r.Role(); role != hub.RoleHolder && role != hub.RoleFollower {
			not = append(not, "hub "+string(h.Name)+" is "+string(role))
		}
	}
	if len(hubs) > 0 && len(not) == len(hubs) {
		return strings.Join(not[:min(len(not), 10)], "\n")
	}
	return ""
}
