import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Paths;
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
  private static final String URN = "beamlabel:transform:label_images:v1";
  private static final Schema IMAGE =
      Schema.builder().addStringField("uri").addInt64Field("customer").build();

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
    byte[] arguments = payload(row(options.getArguments()));

    Pipeline pipeline = Pipeline.create(options);
    PCollectionTuple labeled;
    if (options.getCustomers()) {
      Row[] images = new Row[uris.size()];
      for (int i = 0; i < images.length; i++) {
        images[i] = Row.withSchema(IMAGE).addValues(uris.get(i), (long) i).build();
      }
      labeled =
          pipeline
              .apply(Create.of(List.of(images)).withRowSchema(IMAGE))
              .apply(
                  External.<PCollection<Row>, PCollection<Row>>of(URN, arguments, options.getService())
                      .withMultiOutputs());
    } else {
      labeled =
          pipeline
              .apply(Create.of(uris))
              .apply(
                  External.<PCollection<String>, PCollection<Row>>of(URN, arguments, options.getService())
                      .withMultiOutputs());
    }
    write("predictions", labeled, options.getOutput());
    write("failures", labeled, options.getOutput());
    pipeline.run().waitUntilFinish();
  }

  private static void write(String name, PCollectionTuple labeled, String folder) {
    labeled
        .get(new TupleTag<Row>(name))
        .apply(name + " as JSON", ToJson.of())
        .apply("Write " + name, TextIO.write().to(folder + "/" + name + ".jsonl").withoutSharding());
  }

  /** The arguments of an external transform as its expansion service reads them. */
  private static byte[] payload(Row arguments) throws IOException {
    Schema schema = arguments.getSchema();
    return ExternalConfigurationPayload.newBuilder()
        .setSchema(SchemaTranslation.schemaToProto(schema, true))
        .setPayload(
            ByteString.copyFrom(CoderUtils.encodeToByteArray(RowCoder.of(schema), arguments)))
        .build()
        .toByteArray();
  }

  /** A row with the names and values of a JSON object. */
  private static Row row(String json) throws IOException {
    Map<?, ?> values = new ObjectMapper().readValue(json, Map.class);
    Schema.Builder schema = Schema.builder();
    values.forEach((name, value) -> schema.addField((String) name, type(value)));
    Row.Builder row = Row.withSchema(schema.build());
    values.values().forEach(value -> row.addValue(value instanceof Integer ? ((Integer) value).longValue() : value));
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
