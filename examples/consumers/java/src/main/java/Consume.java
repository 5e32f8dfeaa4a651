// Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//     mvn --quiet compile exec:java -Dexec.mainClass=Consume -Dexec.args="127.0.0.1 5000"

import com.google.protobuf.CodedInputStream;
import io.github.txmetrics_tcp.Event;
import io.github.txmetrics_tcp.Gone;
import io.github.txmetrics_tcp.HistogramTotal;
import io.github.txmetrics_tcp.Metric;
import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

public class Consume {
  public static void main(String[] arguments) throws IOException {
    Map<List<?>, Long> counters = new HashMap<>();
    Map<List<?>, Double> gauges = new HashMap<>();
    Map<List<?>, Long> histograms = new HashMap<>();
    int version = 0;
    try (Socket socket = new Socket(arguments[0], Integer.parseInt(arguments[1]))) {
      InputStream stream = new BufferedInputStream(socket.getInputStream());
      for (int first; (first = stream.read()) >= 0; ) {
        byte[] frame = new byte[CodedInputStream.readRawVarint32(first, stream)];
        if (stream.readNBytes(frame, 0, frame.length) < frame.length) {
          throw new EOFException("the stream ended within a frame");
        }
        Event event = Event.parseFrom(frame);
        if (event.hasStatus()) {
          version = event.getStatus().getProtocolVersion();
        }
        if (event.getSnapshot().getComplete()) {
          // All totals follow; before version 3, histograms had none.
          counters.clear();
          gauges.clear();
          if (version >= 3) {
            histograms.clear();
          }
        }
        if (event.hasHistogramTotal()) {
          // For a histogram, the total is the number of samples.
          HistogramTotal total = event.getHistogramTotal();
          long samples = total.getZeros() + total.getNotFinite();
          samples += total.getPositive().getCountsList().stream().reduce(0L, Long::sum);
          samples += total.getNegative().getCountsList().stream().reduce(0L, Long::sum);
          histograms.put(List.of(total.getName(), total.getLabelsMap()), samples);
        }
        if (event.hasGone()) {
          Gone gone = event.getGone();
          List<?> series = List.of(gone.getName(), gone.getLabelsMap());
          switch (gone.getMetricType()) {
            case COUNTER -> counters.remove(series);
            case GAUGE -> gauges.remove(series);
            case HISTOGRAM -> histograms.remove(series);
            case UNRECOGNIZED -> {} // a kind of a later version
          }
        }
        Metric metric = event.getMetric();
        List<?> series = List.of(metric.getName(), metric.getLabelsMap());
        double value = gauges.getOrDefault(series, 0.0);
        switch (metric.getOperationCase()) {
          // The sum of two longs wraps modulo 2^64.
          case INCREMENT_COUNTER -> counters.merge(series, metric.getIncrementCounter(), Long::sum);
          case SET_COUNTER -> counters.put(series, metric.getSetCounter());
          case INCREMENT_GAUGE -> gauges.put(series, value + metric.getIncrementGauge());
          case DECREMENT_GAUGE -> gauges.put(series, value - metric.getDecrementGauge());
          case SET_GAUGE -> gauges.put(series, metric.getSetGauge());
          case RECORD_HISTOGRAM -> histograms.merge(series, 1L, Long::sum);
          case OPERATION_NOT_SET -> {} // another event, or an operation of a later version
        }
      }
    }
    counters.forEach((series, total) -> show("counter", series, Long.toUnsignedString(total)));
    gauges.forEach((series, total) -> show("gauge", series, total));
    histograms.forEach((series, total) -> show("histogram", series, Long.toUnsignedString(total)));
  }

  static void show(String kind, List<?> series, Object total) {
    System.out.println(kind + " " + series + "\t" + total);
  }
}
