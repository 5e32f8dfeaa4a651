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

	"google.golang.org/protobuf/encoding/protodelim"

	pb "example.com/consume/txmetrics_tcp"
)

func main() {
	connection, err := net.Dial("tcp", net.JoinHostPort(os.Args[1], os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	stream := bufio.NewReader(connection)
	counts, gauges := map[string]uint64{}, map[string]float64{}
	for {
		event := &pb.Event{}
		if err := protodelim.UnmarshalFrom(stream, event); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		metric := event.GetMetric()
		// Maps are printed in the order of their keys.
		series := fmt.Sprintf("%q %q", metric.GetName(), metric.GetLabels())
		switch operation := metric.GetOperation().(type) {
		case *pb.Metric_IncrementCounter:
			counts["counter "+series] += operation.IncrementCounter // modulo 2^64
		case *pb.Metric_SetCounter:
			counts["counter "+series] = operation.SetCounter
		case *pb.Metric_IncrementGauge:
			gauges["gauge "+series] += operation.IncrementGauge
		case *pb.Metric_DecrementGauge:
			gauges["gauge "+series] -= operation.DecrementGauge
		case *pb.Metric_SetGauge:
			gauges["gauge "+series] = operation.SetGauge
		case *pb.Metric_RecordHistogram:
			counts["histogram "+series]++
		}
	}
	for series, total := range counts {
		fmt.Printf("%s\t%d\n", series, total)
	}
	for series, total := range gauges {
		fmt.Printf("%s\t%v\n", series, total)
	}
}
