import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;
import org.apache.rocketmq.common.message.MessageQueue;

/**
 * The Java client under the command of a test: sends and consumes what it is told, and tells what comes of it.
 *
 * <p>Usage: {@code java -cp CLIENT:'LIB/*' JavaClient NAME_SERVERS}. One command a line on standard input, one answer or
 * event a line on standard output, of words between blanks; every word behind the first is the hexadecimal form of a
 * text in UTF-8, or "-" for none.
 *
 * <pre>
 * send CODEC TOPIC TAG KEYS FLAG BODY (NAME VALUE)...  sent ID BROKER QUEUE OFFSET
 * consume NAME GROUP TOPIC EXPRESSION                  consuming NAME
 * queues NAME TOPIC                                    queues NAME (BROKER QUEUE)...
 * end NAME                                             ended NAME
 *                                                      message NAME ID BROKER QUEUE OFFSET TAG KEYS FLAG BODY (NAME VALUE)...
 * </pre>
 *
 * <p>What fails is answered by {@code failed TEXT}. The process lives as long as its standard input.
 */
public final class JavaClient {
    private static final HexFormat HEX = HexFormat.of();

    private final String nameServers;
    private final Map<String, DefaultMQProducer> producers = new HashMap<>();
    private final Map<String, DefaultMQPushConsumer> consumers = new HashMap<>();

    private JavaClient(String nameServers) {
        this.nameServers = nameServers;
    }

    public static void main(String[] arguments) throws Exception {
        JavaClient client = new JavaClient(arguments[0]);
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            try {
                client.obey(line.split(" ", -1));
            } catch (Throwable failure) {
                tell("failed", List.of(failure.toString()));
            }
        }
        Runtime.getRuntime().halt(0);
    }

    private void obey(String[] words) throws Exception {
        List<String> texts = new ArrayList<>();
        for (int i = 1; i < words.length; i++) {
            texts.add(words[i].equals("-") ? null : new String(HEX.parseHex(words[i]), StandardCharsets.UTF_8));
        }
        switch (words[0]) {
            case "send" -> send(texts);
            case "consume" -> consume(texts.get(0), texts.get(1), texts.get(2), texts.get(3));
            case "queues" -> queues(texts.get(0), texts.get(1));
            case "end" -> end(texts.get(0));
            default -> throw new IllegalArgumentException(words[0]);
        }
    }

    private void send(List<String> texts) throws Exception {
        byte[] body = texts.get(5).getBytes(StandardCharsets.UTF_8);
        Message message = new Message(texts.get(1), texts.get(2), body);
        if (texts.get(3) != null) {
            message.setKeys(texts.get(3));
        }
        message.setFlag(Integer.parseInt(texts.get(4)));
        for (int i = 6; i < texts.size(); i += 2) {
            message.putUserProperty(texts.get(i), texts.get(i + 1));
        }
        SendResult result = producer(texts.get(0)).send(message, 60_000);
        MessageQueue queue = result.getMessageQueue();
        tell("sent", List.of(result.getMsgId(), queue.getBrokerName(), "" + queue.getQueueId(), "" + result.getQueueOffset()));
    }

    /** Without a codec nothing is compressed. */
    private DefaultMQProducer producer(String codec) throws Exception {
        DefaultMQProducer known = producers.get("" + codec);
        if (known != null) {
            return known;
        }
        // Both versions look at it when a producer is made.
        System.setProperty("rocketmq.message.compressType", codec == null ? "ZLIB" : codec);
        DefaultMQProducer producer = new DefaultMQProducer("java-producer-" + codec);
        producer.setNamesrvAddr(nameServers);
        producer.setInstanceName("producer-" + codec);
        if (codec == null) {
            producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        }
        producer.start();
        producers.put("" + codec, producer);
        return producer;
    }

    private void consume(String name, String group, String topic, String expression) throws Exception {
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer(group);
        consumer.setNamesrvAddr(nameServers);
        consumer.setInstanceName(name);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.setPersistConsumerOffsetInterval(1000);
        consumer.subscribe(topic, expression);
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(message -> tellMessage(name, message));
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        consumers.put(name, consumer);
        tell("consuming", List.of(name));
    }

    @SuppressWarnings("deprecation") // There is no other way to see the queues of a consumer.
    private void queues(String name, String topic) {
        List<String> texts = new ArrayList<>(List.of(name));
        for (MessageQueue queue :
            consumers.get(name).getDefaultMQPushConsumerImpl().getRebalanceImpl().getProcessQueueTable().keySet()) {
            if (queue.getTopic().equals(topic)) {
                texts.add(queue.getBrokerName());
                texts.add("" + queue.getQueueId());
            }
        }
        tell("queues", texts);
    }

    private void end(String name) {
        consumers.remove(name).shutdown();
        tell("ended", List.of(name));
    }

    private static void tellMessage(String name, MessageExt message) {
        List<String> texts = new ArrayList<>();
        texts.add(name);
        texts.add(message.getMsgId());
        texts.add(message.getBrokerName());
        texts.add("" + message.getQueueId());
        texts.add("" + message.getQueueOffset());
        texts.add(message.getTags());
        texts.add(message.getKeys());
        texts.add("" + message.getFlag());
        texts.add(new String(message.getBody(), StandardCharsets.UTF_8));
        message.getProperties().forEach((key, value) -> {
            texts.add(key);
            texts.add(value);
        });
        tell("message", texts);
    }

    private static void tell(String what, List<String> texts) {
        StringBuilder line = new StringBuilder(what);
        for (String text : texts) {
            line.append(' ').append(text == null ? "-" : HEX.formatHex(text.getBytes(StandardCharsets.UTF_8)));
        }
        synchronized (System.out) {
            System.out.println(line);
        }
    }
}
