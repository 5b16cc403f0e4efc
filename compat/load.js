'use strict';
// Devices that send telemetry and write down what happened to each message: one JSON object per line on standard output.
//
//   node load.js < orders        orders are JSON lines; the first one is the set-up, later ones are {"do": "pause" | "resume" | "stop"}
//
// The set-up: {host, port, hostName, rate, devices: [{id, key, kind: "sdk" | "raw"}]}. Trust comes from NODE_EXTRA_CA_CERTS.
// "sdk" devices use azure-iot-device-mqtt as an application would, "raw" ones mqtt alone. Both are unmodified; we only listen.
//
// Lines: {e, d: device, n: message, t: milliseconds, err}. e is connected, drop (a connection ended that we did not end),
// sent (the application did), wire (the client wrote a PUBLISH; clients do that again after a drop or a time-out), acked,
// failed (the client gave the message up), ready (all are connected), paused (nothing is unanswered), end.
// Time is monotonic, with the wall clock's value at the start. Standard input's end stops everything.

const crypto = require('crypto');
const readline = require('readline');
const { performance } = require('perf_hooks');

let out = [];
function log(e, d, n, err) {
  const line = { e, t: performance.timeOrigin + performance.now() };
  if (d !== undefined) line.d = d;
  if (n !== undefined) line.n = n;
  if (err) line.err = String(err.message || err);
  out.push(JSON.stringify(line));
}
function flush(done) {
  if (out.length === 0) { if (done) done(); return; }
  const text = out.join('\n') + '\n';
  out = [];
  process.stdout.write(text, done);
}
setInterval(flush, 20);

function token(resource, key) {
  const sr = encodeURIComponent(resource);
  const se = Math.floor(Date.now() / 1000) + 24 * 3600;
  const sig = crypto.createHmac('sha256', Buffer.from(key, 'base64')).update(sr + '\n' + se).digest('base64');
  return `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(sig)}&se=${se}`;
}

// Both clients stand on mqtt, each on a version of its own. Its connections tell what they write.
function watch(mqtt) {
  const connect = mqtt.connect;
  mqtt.connect = function (...args) {
    const connection = connect.apply(this, args);
    connection.on('packetsend', (packet) => {
      if (packet.cmd !== 'publish') return;
      const { device, n } = JSON.parse(packet.payload);
      log('wire', device, n);
    });
    return connection;
  };
  return mqtt;
}
const mqtt = watch({ connect: require('mqtt').connect });
watch(require(require.resolve('mqtt', { paths: [require.resolve('azure-iot-mqtt-base')] })));

class Device {
  constructor(setup, device) {
    this.setup = setup;
    this.id = device.id;
    this.key = device.key;
    this.next = 1;
    this.unanswered = 0;
  }
  answered(n, err) {
    this.unanswered--;
    log(err ? 'failed' : 'acked', this.id, n, err);
  }
  tick() {
    const n = this.next++;
    this.unanswered++;
    const body = JSON.stringify({ device: this.id, n });
    log('sent', this.id, n);
    this.send(n, body);
  }
}

class SDK extends Device {
  connect(up) {
    const { Client, Message } = require('azure-iot-device');
    const { Mqtt } = require('azure-iot-device-mqtt');
    this.Message = Message;
    const port = this.setup.port === 8883 ? '' : ':' + this.setup.port;
    const text = `HostName=${this.setup.host}${port};DeviceId=${this.id};SharedAccessKey=${this.key}`;
    this.client = Client.fromConnectionString(text, Mqtt);
    this.client.on('error', (err) => log('error', this.id, undefined, err));
    // The client reconnects by itself and says so nowhere: its transport does.
    this.client._transport.on('disconnect', (err) => { if (!this.closing) log('drop', this.id, undefined, err || 'disconnect'); });
    this.client.open((err) => { log(err ? 'refused' : 'connected', this.id, undefined, err); up(err); });
  }
  send(n, body) {
    const message = new this.Message(body);
    message.messageId = this.id + '/' + n;
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    message.properties.add('n', String(n));
    message.properties.add('client', 'azure-iot-device-mqtt');
    this.client.sendEvent(message, (err) => this.answered(n, err));
  }
  close(done) {
    this.closing = true;
    this.client.close(done);
  }
}

class Raw extends Device {
  connect(up) {
    const { host, port, hostName } = this.setup;
    let first = true;
    this.client = mqtt.connect({
      protocol: 'mqtts', host, port, servername: host, protocolVersion: 4, clientId: this.id, clean: false, keepalive: 30,
      username: `${hostName}/${this.id}/?api-version=2021-04-12`, password: token(`${hostName}/devices/${this.id}`, this.key),
      reconnectPeriod: 250, connectTimeout: 5000,
      reconnectOnConnackError: true, // without it this version gives up for ever when it is told "server unavailable"
    });
    this.client.on('connect', () => {
      log('connected', this.id);
      this.up = true;
      if (first) { first = false; up(); }
    });
    this.client.on('error', (err) => log('error', this.id, undefined, err));
    this.client.on('close', () => {
      if (this.up && !this.closing) log('drop', this.id, undefined, 'close');
      this.up = false;
    });
  }
  send(n, body) {
    const bag = new URLSearchParams({ '$.mid': this.id + '/' + n, '$.ct': 'application/json', '$.ce': 'utf-8', n: String(n), client: 'mqtt' });
    const topic = `devices/${this.id}/messages/events/${bag.toString().replace(/\+/g, '%20')}`;
    this.client.publish(topic, body, { qos: 1 }, (err) => this.answered(n, err));
  }
  close(done) {
    this.closing = true;
    this.client.end(false, {}, done);
  }
}

let devices = [];
let paused = true;
let pausing = false;

function start(setup) {
  devices = setup.devices.map((d) => new (d.kind === 'sdk' ? SDK : Raw)(setup, d));
  let waiting = devices.length;
  devices.forEach((d) => d.connect(() => { if (--waiting === 0) log('ready'); }));
  const every = 1000 / setup.rate;
  devices.forEach((d, i) => setTimeout(() => {
    // By the clock, not by counting timer calls: a late timer must not lower the rate.
    const began = performance.now();
    let due = 0;
    setInterval(() => {
      const owed = Math.floor((performance.now() - began) / every);
      if (paused) { due = owed; return; }
      for (; due < owed; due++) d.tick();
    }, every / 2);
  }, (i * every) / devices.length));
  setInterval(() => {
    if (pausing && devices.every((d) => d.unanswered === 0)) { pausing = false; log('paused'); }
  }, 10);
}

function stop() {
  paused = true;
  log('end');
  flush(() => {
    let open = devices.length;
    const gone = () => { if (--open <= 0) process.exit(0); };
    devices.forEach((d) => d.close(gone));
    setTimeout(() => process.exit(0), 2000);
  });
}

let begun = false;
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const order = JSON.parse(line);
  if (!begun) { begun = true; start(order); return; }
  switch (order.do) {
    case 'resume': paused = false; pausing = false; break;
    case 'pause': paused = true; pausing = true; break;
    case 'stop': stop(); break;
  }
}).on('close', stop);
process.on('uncaughtException', (err) => { log('error', undefined, undefined, err.stack || err); flush(() => process.exit(3)); });
