import java.io.FileInputStream;
import java.io.InputStream;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.SSLSession;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * Talks to an echo server over TLS: PORT PASSWORD TRUST_STORE [KEY_STORE]. In each version it
 * connects twice, and prints a line for each connection.
 */
public class EchoClient {
    public static void main(String[] args) throws Exception {
        char[] password = args[1].toCharArray();
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(store(args[2], password));
        KeyManagerFactory keys = KeyManagerFactory.getInstance("PKIX");
        keys.init(args.length > 3 ? store(args[3], password) : null, password);
        for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
            for (int i = 0; i < 2; i++) {
                try {
                    System.out.println(version + ": " + talk(context, args[0], version));
                } catch (Exception e) {
                    System.out.println(version + ": failed: " + e);
                }
            }
        }
    }

    private static KeyStore store(String file, char[] password) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(new FileInputStream(file), password);
        return store;
    }

    private static String talk(SSLContext context, String port, String version) throws Exception {
        try (SSLSocket socket = (SSLSocket) context.getSocketFactory()
                .createSocket("localhost", Integer.parseInt(port))) {
            socket.setSoTimeout(20_000);
            SSLParameters parameters = socket.getSSLParameters();
            parameters.setProtocols(new String[] {version});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            socket.setSSLParameters(parameters);
            socket.startHandshake();
            byte[] sent = new byte[100_000];
            new java.util.Random(1).nextBytes(sent);
            socket.getOutputStream().write(sent);
            InputStream in = socket.getInputStream();
            byte[] got = in.readNBytes(sent.length);
            // What is said of a session is remembered with it.
            SSLSession session = socket.getSession();
            boolean isResumed = session.getValue("seen") != null;
            session.putValue("seen", true);
            socket.shutdownOutput();
            boolean isEnded = in.read() == -1;
            return session.getProtocol()
                    + (java.util.Arrays.equals(sent, got) ? ", echo" : ", damage")
                    + (isResumed ? ", resumed" : ", new")
                    + (isEnded ? ", ended in order" : ", more data");
        }
    }
}
