import java.io.IOException;
import java.io.OutputStream;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Enumeration;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** Reads every jar of a folder to its end, checksums included: {@code java CheckJars FOLDER}; fails on a broken one. */
public final class CheckJars {
    public static void main(String[] arguments) throws IOException {
        int jars = 0;
        try (DirectoryStream<Path> files = Files.newDirectoryStream(Path.of(arguments[0]), "*.jar")) {
            for (Path file : files) {
                read(file);
                jars++;
            }
        }
        if (jars == 0) {
            throw new IOException("no jar in " + arguments[0]);
        }
    }

    private static void read(Path file) throws IOException {
        try (ZipFile jar = new ZipFile(file.toFile())) {
            Enumeration<? extends ZipEntry> entries = jar.entries();
            while (entries.hasMoreElements()) {
                jar.getInputStream(entries.nextElement()).transferTo(OutputStream.nullOutputStream());
            }
        } catch (IOException broken) {
            throw new IOException("broken jar " + file, broken);
        }
    }
}
