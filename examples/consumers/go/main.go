// Consume prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go
//	protoc --proto_path=../../../proto --go_out=. --go_opt=paths=source_relative txmetrics_tcp/event.proto
//	go run . 127.0.0.1:5000
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"slices"

	"google.golang.org/protobuf/encoding/protodelim"

	pb "example.com/consume/txmetrics_tcp"
)

// series is a series with its total.
type series struct {
	kind, name string
	labels     map[string]string
	count      uint64  // the total of a counter, or the number of samples of a histogram
	value      float64 // the value of a gauge
}

// totals has a key for each combination of kind, name and labels.
var totals = map[string]*series{}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: consume HOST:PORT")
	}
	connection, err := net.Dial("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	stream := bufio.NewReader(connection)
	frames := protodelim.UnmarshalOptions{MaxSize: 1 << 20}
	for {
		event := &pb.Event{}
		err := frames.UnmarshalFrom(stream, event)
		if err == io.EOF {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		apply(event.GetMetric())
	}
	for _, key := range slices.Sorted(maps.Keys(totals)) {
		show(totals[key])
	}
}

// apply applies an operation. It skips a metric without a known operation, and nil: an empty event or another variant.
func apply(metric *pb.Metric) {
	switch operation := metric.GetOperation().(type) {
	case *pb.Metric_IncrementCounter:
		find("counter", metric).count += operation.IncrementCounter // wraps modulo 2^64
	case *pb.Metric_SetCounter:
		find("counter", metric).count = operation.SetCounter
	case *pb.Metric_IncrementGauge:
		find("gauge", metric).value += operation.IncrementGauge
	case *pb.Metric_DecrementGauge:
		find("gauge", metric).value -= operation.DecrementGauge
	case *pb.Metric_SetGauge:
		find("gauge", metric).value = operation.SetGauge
	case *pb.Metric_RecordHistogram:
		find("histogram", metric).count++
	}
}

// find returns the series of a metric.
func find(kind string, metric *pb.Metric) *series {
	key := fmt.Sprintf("%s %q %q", kind, metric.Name, metric.Labels) // maps are printed in sorted order
	found := totals[key]
	if found == nil {
		found = &series{kind: kind, name: metric.Name, labels: metric.Labels}
		totals[key] = found
	}
	return found
}

func show(one *series) {
	fmt.Printf("%s\t%s", one.kind, one.name)
	for _, label := range slices.Sorted(maps.Keys(one.labels)) {
		fmt.Printf("\t%s=%s", label, one.labels[label])
	}
	if one.kind == "gauge" {
		fmt.Printf("\t%v\n", one.value)
	} else {
		fmt.Printf("\t%d\n", one.count)
	}
}
