import java.io.FileInputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.security.KeyStore;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.X509ExtendedKeyManager;

/**
 * A server that has the key of a store and shows whatever certificate it is given: KEY_STORE
 * PASSWORD CERTIFICATE... In each version, and with each certificate, it listens on a port of its
 * own and serves one connection: it sends a line back the other way round.
 */
public class Impostor extends X509ExtendedKeyManager {
    private final PrivateKey key;
    private final X509Certificate certificate;

    Impostor(PrivateKey key, X509Certificate certificate) {
        this.key = key;
        this.certificate = certificate;
    }

    public static void main(String[] args) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        char[] password = args[1].toCharArray();
        store.load(new FileInputStream(args[0]), password);
        PrivateKey key = (PrivateKey) store.getKey(store.aliases().nextElement(), password);
        for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            for (int i = 2; i < args.length; i++) {
                serve(new Impostor(key, certificate(args[i])), version);
            }
        }
    }

    private static X509Certificate certificate(String file) throws Exception {
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        return (X509Certificate) factory.generateCertificate(new FileInputStream(file));
    }

    private static void serve(Impostor impostor, String version) throws Exception {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(new KeyManager[] {impostor}, null, null);
        SSLServerSocket server = (SSLServerSocket) context.getServerSocketFactory()
                .createServerSocket(0, 1, InetAddress.getByName("127.0.0.1"));
        server.setEnabledProtocols(new String[] {version});
        System.out.println("listening on " + server.getLocalPort());
        try (Socket socket = server.accept()) {
            StringBuilder line = new StringBuilder();
            for (int c; (c = socket.getInputStream().read()) != '\n'; ) {
                line.append((char) c);
            }
            socket.getOutputStream().write((line.reverse() + "\n").getBytes("US-ASCII"));
        } catch (SSLException e) {
            System.out.println("refused: " + e.getMessage());
        }
    }

    @Override
    public String[] getClientAliases(String type, Principal[] issuers) {
        return null;
    }

    @Override
    public String chooseClientAlias(String[] types, Principal[] issuers, Socket socket) {
        return null;
    }

    @Override
    public String[] getServerAliases(String type, Principal[] issuers) {
        return new String[] {"it"};
    }

    @Override
    public String chooseServerAlias(String type, Principal[] issuers, Socket socket) {
        return type.startsWith("EC") ? "it" : null;
    }

    @Override
    public String chooseEngineServerAlias(String type, Principal[] issuers, SSLEngine engine) {
        return chooseServerAlias(type, issuers, null);
    }

    @Override
    public X509Certificate[] getCertificateChain(String alias) {
        return new X509Certificate[] {certificate};
    }

    @Override
    public PrivateKey getPrivateKey(String alias) {
        return key;
    }
}
