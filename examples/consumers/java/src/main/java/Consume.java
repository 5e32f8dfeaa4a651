// Prints the totals of a txmetrics-tcp stream when the server closes the connection.
//
//     mvn --quiet compile exec:java -Dexec.mainClass=Consume -Dexec.args=127.0.0.1:5000

import static java.nio.charset.StandardCharsets.UTF_8;

import com.google.protobuf.CodedInputStream;
import io.github.txmetrics_tcp.Event;
import io.github.txmetrics_tcp.Metric;
import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.net.Socket;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;

public class Consume {
  static final int MAX_FRAME = 1 << 20;

  record Series(String kind, String name, Map<String, String> labels) {}

  // The totals of counters, as unsigned numbers, and the numbers of samples of histograms.
  final Map<Series, Long> counts = new HashMap<>();
  final Map<Series, Double> gauges = new HashMap<>();

  public static void main(String[] args) {
    int colon = args.length == 1 ? args[0].lastIndexOf(':') : -1;
    if (colon < 0) {
      System.err.println("usage: Consume HOST:PORT");
      System.exit(2);
    }
    Consume consume = new Consume();
    int port = Integer.parseInt(args[0].substring(colon + 1));
    try (Socket socket = new Socket(args[0].substring(0, colon), port)) {
      consume.read(new BufferedInputStream(socket.getInputStream()));
    } catch (IOException error) {
      System.err.println("consume: " + error);
      System.exit(1);
    }
    consume.show();
  }

  void read(InputStream stream) throws IOException {
    for (int first = stream.read(); first >= 0; first = stream.read()) {
      int length = CodedInputStream.readRawVarint32(first, stream);
      if (length < 0 || length > MAX_FRAME) {
        throw new IOException("the server sent a frame of more than " + MAX_FRAME + " bytes");
      }
      byte[] frame = stream.readNBytes(length);
      if (frame.length < length) {
        throw new EOFException("the stream ended within a frame");
      }
      // An empty frame is an event without a variant, and an unknown variant is skipped as well.
      Event event = Event.parseFrom(frame);
      if (event.hasMetric()) {
        apply(event.getMetric());
      }
    }
  }

  void apply(Metric metric) {
    Series counter = new Series("counter", metric.getName(), metric.getLabelsMap());
    Series gauge = new Series("gauge", metric.getName(), metric.getLabelsMap());
    Series histogram = new Series("histogram", metric.getName(), metric.getLabelsMap());
    double value = gauges.getOrDefault(gauge, 0.0);
    switch (metric.getOperationCase()) {
      // The sum of longs wraps modulo 2^64.
      case INCREMENT_COUNTER -> counts.merge(counter, metric.getIncrementCounter(), Long::sum);
      case SET_COUNTER -> counts.put(counter, metric.getSetCounter());
      case INCREMENT_GAUGE -> gauges.put(gauge, value + metric.getIncrementGauge());
      case DECREMENT_GAUGE -> gauges.put(gauge, value - metric.getDecrementGauge());
      case SET_GAUGE -> gauges.put(gauge, metric.getSetGauge());
      case RECORD_HISTOGRAM -> counts.merge(histogram, 1L, Long::sum);
      case OPERATION_NOT_SET -> {} // an operation of a later version
    }
  }

  void show() {
    PrintStream out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, UTF_8);
    counts.forEach((series, total) -> out.println(line(series, Long.toUnsignedString(total))));
    gauges.forEach((series, total) -> out.println(line(series, Double.toString(total))));
  }

  static String line(Series series, String total) {
    StringBuilder line = new StringBuilder(series.kind + "\t" + series.name + "\t");
    new TreeMap<>(series.labels).forEach((key, value) -> line.append(key + "=" + value + "\t"));
    return line.append(total).toString();
  }
}
