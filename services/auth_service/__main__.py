from auth_service.settings import AuthSettings
from shared.serve import serve

serve("auth_service", AuthSettings)
