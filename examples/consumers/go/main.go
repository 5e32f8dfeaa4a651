// Consume prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go
//	PATH=$PATH:$(go env GOPATH)/bin protoc --proto_path=../../../proto --go_out=. --go_opt=paths=source_relative txmetrics_tcp/event.proto
//	go run . 127.0.0.1 5000
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protodelim"

	pb "example.com/consume/txmetrics_tcp"
)

func main() {
	connection, err := net.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	stream := bufio.NewReader(connection)
	counters, histograms, gauges := map[string]uint64{}, map[string]uint64{}, map[string]float64{}
	version := uint32(0)
	for {
		event := &pb.Event{}
		if err := protodelim.UnmarshalFrom(stream, event); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		if status := event.GetStatus(); status != nil {
			version = status.GetProtocolVersion()
		}
		if event.GetSnapshot().GetComplete() {
			// All totals follow; before version 3, histograms had none.
			clear(counters)
			clear(gauges)
			if version >= 3 {
				clear(histograms)
			}
		}
		if total := event.GetHistogramTotal(); total != nil {
			// For a histogram, the total is the number of samples.
			samples := total.GetZeros() + total.GetNotFinite()
			for _, count := range slices.Concat(total.GetPositive().GetCounts(), total.GetNegative().GetCounts()) {
				samples += count
			}
			histograms[key(total.GetName(), total.GetLabels())] = samples
		}
		if gone := event.GetGone(); gone != nil {
			series := key(gone.GetName(), gone.GetLabels())
			switch gone.GetMetricType() {
			case pb.Metadata_COUNTER:
				delete(counters, series)
			case pb.Metadata_GAUGE:
				delete(gauges, series)
			case pb.Metadata_HISTOGRAM:
				delete(histograms, series)
			}
		}
		metric := event.GetMetric()
		series := key(metric.GetName(), metric.GetLabels())
		switch operation := metric.GetOperation().(type) {
		case *pb.Metric_IncrementCounter:
			counters[series] += operation.IncrementCounter // modulo 2^64
		case *pb.Metric_SetCounter:
			counters[series] = operation.SetCounter
		case *pb.Metric_IncrementGauge:
			gauges[series] += operation.IncrementGauge
		case *pb.Metric_DecrementGauge:
			gauges[series] -= operation.DecrementGauge
		case *pb.Metric_SetGauge:
			gauges[series] = operation.SetGauge
		case *pb.Metric_RecordHistogram:
			histograms[series]++
		}
	}
	show("counter", counters)
	show("gauge", gauges)
	show("histogram", histograms)
}

func key(name string, labels map[string]string) string {
	// Maps are printed in the order of their keys.
	return fmt.Sprintf("%q %q", name, labels)
}

func show[Total any](kind string, totals map[string]Total) {
	for series, total := range totals {
		fmt.Printf("%s %s\t%v\n", kind, series, total)
	}
}
