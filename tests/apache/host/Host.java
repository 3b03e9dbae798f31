import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.Method;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;

/**
 * Runs name servers and brokers of one Apache RocketMQ version for the tests, and ends with them.
 *
 * <p>Usage: {@code java -cp CONF:HOST:'LIB/*' Host FOLDER ROLE=CONF_FILE...} with the roles {@code namesrv} and
 * {@code broker}, started in the order given. A broker is started once all its name servers accept connections.
 *
 * <p>The process lives as long as its standard input: the test process holds the other end of that pipe, so that the
 * end of input means the end of the tests, however they ended. FOLDER is removed then. No server class is named at
 * compile time: one compiled host serves every version.
 */
public final class Host {
    public static void main(String[] arguments) throws Exception {
        Thread watcher = new Thread(() -> endWithInput(Path.of(arguments[0])), "end-with-input");
        watcher.setDaemon(true);
        watcher.start();
        try {
            for (int i = 1; i < arguments.length; i++) {
                String[] role = arguments[i].split("=", 2);
                start(role[0], role[1]);
            }
            System.out.println("all roles are started");
        } catch (Throwable failure) {
            failure.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    private static void start(String role, String configFile) throws Exception {
        String[] options = {"-c", configFile};
        if (role.equals("namesrv")) {
            Class<?> startup = Class.forName("org.apache.rocketmq.namesrv.NamesrvStartup");
            startup.getMethod("main0", String[].class).invoke(null, (Object) options);
        } else {
            awaitNameServers(configFile);
            Class<?> startup = Class.forName("org.apache.rocketmq.broker.BrokerStartup");
            Method create = startup.getMethod("createBrokerController", String[].class);
            Object controller = create.invoke(null, (Object) options);
            startup.getMethod("start", controller.getClass()).invoke(null, controller);
        }
    }

    /** A broker that finds no name server at its start tries again only ten seconds later. */
    private static void awaitNameServers(String configFile) throws Exception {
        Properties properties = new Properties();
        try (InputStream in = Files.newInputStream(Path.of(configFile))) {
            properties.load(in);
        }
        for (String address : properties.getProperty("namesrvAddr").split(";")) {
            int colon = address.lastIndexOf(':');
            while (!accepts(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)))) {
                Thread.sleep(50);
            }
        }
    }

    private static boolean accepts(String host, int port) {
        try (Socket socket = new Socket(host, port)) {
            return socket.isConnected();
        } catch (IOException refused) {
            return false;
        }
    }

    private static void endWithInput(Path folder) {
        try {
            while (System.in.read() >= 0) { }
        } catch (IOException broken) {
            // The same as its end.
        }
        // A server thread may write a file between the listing of a folder and its removal.
        for (int attempt = 0; attempt < 10 && !remove(folder.toFile()); attempt++) { }
        Runtime.getRuntime().halt(0);
    }

    private static boolean remove(File file) {
        File[] children = Files.isSymbolicLink(file.toPath()) ? null : file.listFiles();
        for (File child : children == null ? new File[0] : children) {
            remove(child);
        }
        return file.delete() || !file.exists();
    }
}
