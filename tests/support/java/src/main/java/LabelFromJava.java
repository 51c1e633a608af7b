import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.beam.model.pipeline.v1.ExternalTransforms.ExternalConfigurationPayload;
import org.apache.beam.sdk.Pipeline;
import org.apache.beam.sdk.coders.RowCoder;
import org.apache.beam.sdk.io.TextIO;
import org.apache.beam.sdk.options.PipelineOptions;
import org.apache.beam.sdk.options.PipelineOptionsFactory;
import org.apache.beam.sdk.options.Validation.Required;
import org.apache.beam.sdk.schemas.Schema;
import org.apache.beam.sdk.schemas.Schema.FieldType;
import org.apache.beam.sdk.schemas.SchemaTranslation;
import org.apache.beam.sdk.transforms.Create;
import org.apache.beam.sdk.transforms.ToJson;
import org.apache.beam.sdk.util.CoderUtils;
import org.apache.beam.sdk.util.construction.External;
import org.apache.beam.sdk.values.PCollection;
import org.apache.beam.sdk.values.PCollectionTuple;
import org.apache.beam.sdk.values.Row;
import org.apache.beam.sdk.values.TupleTag;
import org.apache.beam.vendor.grpc.v1p60p1.com.google.protobuf.ByteString;

/**
 * Labels a list of images with beamlabel's Python transform, and writes the rows as lines of JSON.
 *
 * <p>The images are strings; with {@code --customers} they are rows with a field more, which comes back.
 */
public final class LabelFromJava {
  /** What the command line takes beside Beam's options. */
  public interface Options extends PipelineOptions {
    /** A text file with one URI a line. */
    @Required
    String getUris();

    void setUris(String uris);

    /** The keyword arguments of {@code LabelImages}, as a JSON object. */
    @Required
    String getArguments();

    void setArguments(String arguments);

    /** The expansion service, as host:port. */
    @Required
    String getService();

    void setService(String service);

    /** Whether the images are rows with a customer; the customer is the place in the list. */
    boolean getCustomers();

    void setCustomers(boolean customers);

    /** The folder to write to. */
    @Required
    String getOutput();

    void setOutput(String output);
  }

  public static void main(String[] args) throws IOException {
    Options options = PipelineOptionsFactory.fromArgs(args).withValidation().as(Options.class);
    List<String> uris = Files.readAllLines(Paths.get(options.getUris()));
    Row arguments = row(options.getArguments());

    Pipeline pipeline = Pipeline.create(options);
    PCollectionTuple labeled =
        options.getCustomers()
            ? label(pipeline.apply(withCustomers(uris)), arguments, options.getService())
            : label(pipeline.apply(Create.of(uris)), arguments, options.getService());
    write("predictions", labeled, options.getOutput());
    write("failures", labeled, options.getOutput());
    pipeline.run().waitUntilFinish();
  }

  /** LabelImages: the rows called predictions, and those called failures. */
  private static <T> PCollectionTuple label(PCollection<T> images, Row arguments, String service)
      throws IOException {
    Schema schema = arguments.getSchema();
    byte[] payload =
        ExternalConfigurationPayload.newBuilder()
            .setSchema(SchemaTranslation.schemaToProto(schema, true))
            .setPayload(
                ByteString.copyFrom(CoderUtils.encodeToByteArray(RowCoder.of(schema), arguments)))
            .build()
            .toByteArray();
    return images.apply(
        "LabelImages",
        External.<PCollection<T>, PCollection<Row>>of(
                "beamlabel:transform:label_images:v1", payload, service)
            .withMultiOutputs());
  }

  private static void write(String name, PCollectionTuple labeled, String folder) {
    labeled
        .get(new TupleTag<Row>(name))
        .apply(name + " as JSON", ToJson.of())
        .apply("Write " + name, TextIO.write().to(folder + "/" + name + ".jsonl").withoutSharding());
  }

  private static Create.Values<Row> withCustomers(List<String> uris) {
    Schema schema = Schema.builder().addStringField("uri").addInt64Field("customer").build();
    List<Row> images = new ArrayList<>();
    for (String uri : uris) {
      images.add(Row.withSchema(schema).addValues(uri, (long) images.size()).build());
    }
    return Create.of(images).withRowSchema(schema);
  }

  /** A row with the names and values of a JSON object. */
  private static Row row(String json) throws IOException {
    Map<?, ?> values = new ObjectMapper().readValue(json, Map.class);
    Schema.Builder schema = Schema.builder();
    values.forEach((name, value) -> schema.addField((String) name, type(value)));
    Row.Builder row = Row.withSchema(schema.build());
    for (Object value : values.values()) {
      row.addValue(value instanceof Integer ? ((Integer) value).longValue() : value);
    }
    return row.build();
  }

  private static FieldType type(Object value) {
    if (value instanceof String) {
      return FieldType.STRING;
    } else if (value instanceof Boolean) {
      return FieldType.BOOLEAN;
    } else if (value instanceof Integer || value instanceof Long) {
      return FieldType.INT64;
    } else if (value instanceof Double) {
      return FieldType.DOUBLE;
    } else if (value instanceof List) {
      return FieldType.array(type(((List<?>) value).get(0)));
    }
    throw new IllegalArgumentException("an argument of no known type: " + value);
  }

  private LabelFromJava() {}
}
