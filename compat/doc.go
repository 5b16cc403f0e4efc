// Package compat points real, unmodified clients at a running Tandem and checks what it promises from outside: the binary,
// `tandem dev` with its environment file, and the public doors. Nothing here imports Tandem's packages.
//
//	load.js (azure-iot-device-mqtt, mqtt) ──sent, acked, drop──▶ journal ──▶ verify ◀── events and receipts read back
//
// The tests need TANDEM_BINARY (make clients and make compat set it), and say so when they skip. With -short the rounds
// are few; without it they are those of the promise. TestChaos needs TANDEM_CHAOS_ROUNDS as well (make chaos).
package compat
